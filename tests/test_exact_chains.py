"""Exact mode with chains that llama_cpp.Llama does not make itself: stock's tokens, or an error."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import PROMPTS, Pair, take
from llama_cpp import _internals as internals
from test_exact import repeat_rows

from vocabtailor_gguf import TailoredLlama, TokenSet, split_model
from vocabtailor_gguf.errors import VocabTailorError

N_VOCAB = 6000
SOME = TokenSet(range(900))

Make = Callable[[], Any]


def bias(*pairs: tuple[int, float]) -> Make:
    array = (llama_cpp.llama_logit_bias * len(pairs))(
        *(llama_cpp.llama_logit_bias(t, b) for t, b in pairs)
    )
    return lambda: llama_cpp.llama_sampler_init_logit_bias(N_VOCAB, len(pairs), array)


def penalties(*args: float) -> Make:
    return lambda: llama_cpp.llama_sampler_init_penalties(N_VOCAB, *args)


def made(name: str, *args: Any) -> Make:
    return lambda: getattr(llama_cpp, f"llama_sampler_init_{name}")(*args)


def nested(*makers: Make) -> Make:
    def make() -> Any:
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for maker in makers:
            llama_cpp.llama_sampler_chain_add(chain, maker())
        return chain

    return make


greedy = made("greedy")
top_k = made("top_k", 40)
dist = made("dist", 7)

CHAINS: dict[str, list[Make]] = {
    "adaptive-p after top-k": [top_k, made("adaptive_p", 0.3, 0.9, 7)],
    "adaptive-p after min-p": [made("min_p", 0.01, 1), made("adaptive_p", 0.3, 0.9, 7)],
    "large top-k, bias, greedy": [
        made("top_k", 5000),
        bias(*((t, 60.0) for t in range(100, 400))),
        greedy,
    ],
    "large top-k, min-p": [made("top_k", 5000), made("min_p", 0.02, 1), dist],
    "top-k of all": [made("top_k", 10**6), made("min_p", 0.02, 1), dist],
    "top-k at the probe's end": [made("top_k", 4095), dist],
    "typical, large min-keep": [made("typical", 0.5, 5000), greedy],
    "top-p, large min-keep": [made("top_p", 0.5, 5000), greedy],
    "min-p, large min-keep": [made("min_p", 0.5, 5000), dist],
    "min-p above 1": [made("min_p", 1.5, 1), dist],
    "greedy that is overruled": [greedy, top_k, made("temp", 1.5), dist],
    "bias listed often": [bias(*[(5500, 6.0)] * 12), greedy],
    "bias listed often, in the set": [bias(*[(555, 6.0)] * 12), greedy],
    "bias of either sign": [bias((5500, -6.0), *[(5500, 12.0)] * 6), greedy],
    "bias listed thrice, top-k": [bias(*[(5500, 2.0)] * 3, *[(700, -1.0)] * 2), top_k, dist],
    "biases that cancel": [
        bias(*((t, b) for t in range(900, N_VOCAB) for b in (1e9, -1e9, 0.1))),
        greedy,
    ],
    "bias beyond the sort's buckets": [bias((5500, 1e10)), made("top_k", 200), dist],
    "frequency is rewarded": [penalties(64, 1.0, -3.0, 0.0), greedy],
    "repetition is rewarded": [penalties(64, 0.5, 0.0, 0.0), made("top_k", 20), dist],
    "nested": [nested(top_k, made("temp", 0.9)), dist],
    "nested, all of it": [nested(nested(top_k, dist))],
}


def give_chain(llm: Any, makers: Sequence[Make]) -> None:
    """Make a model sample with a chain of these samplers."""

    def make(*args: Any, **kwargs: Any) -> Any:
        chain = internals.LlamaSampler()
        for maker in makers:
            llama_cpp.llama_sampler_chain_add(chain.sampler, maker())
        return chain

    llm._init_sampler = make


@pytest.mark.parametrize("name", CHAINS)
def test_chains(pair: Callable[..., Pair], name: str) -> None:
    both = pair("llama", {"n_vocab": N_VOCAB}, token_set=SOME)
    tokens = []
    for llm in (both.stock, both.exact):
        give_chain(llm, CHAINS[name])
        tokens.append([take(llm, prompt, 100) for prompt in PROMPTS])
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("args", [(64, 1.0, -2.0, 0.0), (256, 1.0, 0.0, -4.0), (64, 0.3, 0.0, 0.0)])
def test_penalties_that_raise(tiny: Any, tmp_path: Any, args: tuple[float, ...]) -> None:
    """Tokens come back that were decided on all logits, because of equal ones among the best."""
    path = repeat_rows(tiny("llama", n_vocab=6000), tmp_path / "m.gguf", "output.weight", 5900)
    both = Pair(path, split_model(path, tmp_path).core, token_set=SOME, n_ctx=256)
    for seed in range(4):
        tokens = []
        for llm in (both.stock, both.exact):
            give_chain(llm, [penalties(*args), top_k, made("dist", seed)])
            tokens.append(take(llm, PROMPTS[0], 120))
        assert tokens[0] == tokens[1]
    assert both.exact._session.verifier.stats().n_whole > 0
    both.close()


@pytest.mark.parametrize(
    "makers",
    [
        [made("top_k", 5000), made("min_p", 0.03, 1), made("temp", 1.3)],
        [made("top_k", 5000)],
        [made("min_p", 0.03, 1), made("temp", 1.3)],
        [top_k],
    ],
)
def test_ties(tiny: Any, tmp_path: Any, makers: list[Make]) -> None:
    """A sort decides among equal logits, and how depends on all it sorts."""
    path = repeat_rows(tiny("llama", n_vocab=6000), tmp_path / "m.gguf", "output.weight", 3000)
    both = Pair(
        path, split_model(path, tmp_path).core, token_set=TokenSet(range(0, 6000, 2)), n_ctx=128
    )
    for seed in range(8):
        tokens = []
        for llm in (both.stock, both.exact):
            give_chain(llm, [*makers, made("dist", seed)])
            tokens.append(take(llm, PROMPTS[0], 40))
        assert tokens[0] == tokens[1]
    both.close()


def python_chain(apply: Callable[[Any], None]) -> Callable[..., Any]:
    def make(*args: Any, **kwargs: Any) -> Any:
        chain = internals.LlamaSampler()
        chain.add_custom(apply)
        chain.add_top_k(40)
        chain.add_dist(3)
        return chain

    return make


def test_python_samplers(pair: Callable[..., Pair]) -> None:
    """They cannot be cloned: the caller's own see all logits, once a token."""
    both = pair("llama", {"n_vocab": 2048})
    found = []
    for llm in (both.stock, both.exact):
        sizes: list[int] = []

        def apply(candidates: Any, sizes: list[int] = sizes) -> None:
            array = candidates.contents
            sizes.append(array.size)
            for i in range(0, array.size, 3):
                array.data[i].logit -= len(sizes) / 10

        llm._init_sampler = python_chain(apply)
        found.append((take(llm, PROMPTS[0], 30), sizes))
    assert found[0] == found[1]


def test_a_python_sampler_that_selects_nonsense(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})

    def apply(candidates: Any) -> None:
        array = candidates.contents
        array.data[0].id = 10**6
        array.size = 1

    llm: Any = both.exact
    llm._init_sampler = python_chain(apply)
    with pytest.raises(VocabTailorError, match="selected token 1000000"):
        take(llm, PROMPTS[0], 5)
    llm._init_sampler = python_chain(lambda candidates: None)
    assert len(take(llm, PROMPTS[0], 5)) == 5


def test_audits_need_clones(tiny_split: Any) -> None:
    llm: Any = TailoredLlama(
        tiny_split("llama").core, mode="tailored", audit=1.0, n_ctx=64, verbose=False
    )
    llm._init_sampler = python_chain(lambda candidates: None)
    with pytest.raises(VocabTailorError, match="cannot be cloned"):
        next(llm.generate(PROMPTS[0]))
    llm.close()


def test_a_sampler_without_functions(pair: Callable[..., Pair]) -> None:
    llm: Any = pair("llama").exact
    empty = llama_cpp.llama_sampler()
    for wrap in (lambda make: make, nested, lambda make: nested(nested(make))):
        chain = internals.LlamaSampler()
        llama_cpp.llama_sampler_chain_add(chain.sampler, wrap(lambda: ctypes.pointer(empty))())
        llm._init_sampler = lambda *args, chain=chain, **kwargs: chain
        with pytest.raises(VocabTailorError, match="sampler 0 of the chain has no functions"):
            next(llm.generate(PROMPTS[0]))
        # llama.cpp would free what is not its own
        chain.sampler = None


def test_nested_samplers_that_cannot_be_cloned(pair: Callable[..., Pair]) -> None:
    """With a context of their own, llama.cpp aborts where it would clone them."""
    both = pair("llama", {"n_vocab": 2048})
    iface = llama_cpp.llama_sampler_i()
    mine = llama_cpp.llama_sampler(ctypes.pointer(iface), ctypes.c_void_p(1))
    tokens = []
    for llm in (both.stock, both.exact):
        inner = internals.LlamaSampler()
        llama_cpp.llama_sampler_chain_add(inner.sampler, ctypes.pointer(mine))
        inner.add_top_k(40)
        chain = internals.LlamaSampler()
        llama_cpp.llama_sampler_chain_add(chain.sampler, inner.sampler)
        chain.add_dist(3)
        llm._init_sampler = lambda *args, chain=chain, **kwargs: chain
        tokens.append(take(llm, PROMPTS[0], 30))
        llama_cpp.llama_sampler_chain_remove(inner.sampler, 0)
        inner.sampler = None  # its owner frees it
    assert tokens[0] == tokens[1]


def test_rows_by_the_thousand(pair: Callable[..., Pair]) -> None:
    """What a far threshold lists does not join the active set."""
    both = pair("llama", {"n_vocab": 20_000}, token_set=SOME)
    tokens = []
    for llm in (both.stock, both.exact):
        give_chain(llm, [made("min_p", 1e-20, 1), made("temp", 0.2), dist])
        tokens.append([take(llm, prompt, 20) for prompt in PROMPTS])
    assert tokens[0] == tokens[1]
    assert both.exact._session.verifier.stats().n_whole > 0
    both.exact.reset()
    for _ in zip(range(12), both.exact.generate(PROMPTS[0]), strict=False):
        assert len(both.exact.active_ids) < 8_000


def last_token(llm: llama_cpp.Llama) -> int:
    """The token that is last of all after a prompt."""
    llm.reset()
    llm.eval(PROMPTS[0])
    logits = np.ctypeslib.as_array(llm._ctx.get_logits_ith(-1), shape=(N_VOCAB,))
    return int(logits.argmin())


def test_what_follows_a_large_top_k(pair: Callable[..., Pair]) -> None:
    """A bias after it does not reach what it has dropped."""
    both = pair("llama", {"n_vocab": N_VOCAB}, token_set=SOME)
    makers = [made("top_k", 5000), bias((last_token(both.stock), 200.0)), greedy]
    tokens = []
    for llm in (both.stock, both.exact):
        give_chain(llm, makers)
        tokens.append(take(llm, PROMPTS[0], 3))
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("text", ['"\\u20ac\\u20ac"', '""'])
@pytest.mark.parametrize("borrow", [False, True])
def test_grammars_that_cannot_go_on(pair: Callable[..., Pair], text: str, borrow: bool) -> None:
    """An error at each call, also where llama.cpp would abort, and the model goes on."""
    both = pair("llama", {"n_vocab": 2048})
    vocab = both.stock._model.vocab
    end = both.stock.token_eos()
    expected = take(both.stock, PROMPTS[0], 5, temp=0.0)
    chosen = end if text != '""' else 500
    makers = [
        bias((chosen, 1e4)),
        made("top_k", 1),
        made("grammar", vocab, f"root ::= {text}".encode(), b"root"),
        *([nested(made("temp", 1.0))] if borrow else []),
        greedy,
    ]
    llm: Any = both.exact
    own = llm._init_sampler
    give_chain(llm, makers)
    llm.reset()
    llm.eval(PROMPTS[0])
    llm._sampler = llm._init_sampler()
    for _ in range(3):
        with pytest.raises(VocabTailorError, match="sampler chain"):
            llm.sample()
    llm._sampler = None
    llm._init_sampler = own
    assert take(llm, PROMPTS[0], 5, temp=0.0) == expected
