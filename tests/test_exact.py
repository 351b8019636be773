"""Exact mode against stock llama_cpp.Llama, token for token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from headbench import TABLES
from llama_cpp import _internals as internals

from vocabtailor_gguf import TailoredLlama, TokenSet, split_model
from vocabtailor_gguf._gguf import GGUFHeader
from vocabtailor_gguf.errors import VocabTailorError

COMMON: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
# the same remainders as in TABLES for every group of rows that ggml may form
MORE_ROWS = 1600

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temp": 0.0},
    "default": {},
    "hot": {"temp": 1.5, "top_k": 100, "top_p": 1.0, "min_p": 0.0},
    "top-k 1": {"temp": 1.0, "top_k": 1},
    "min-p": {"temp": 1.3, "top_k": 0, "top_p": 1.0, "min_p": 0.1},
    "min-p, small": {"temp": 0.9, "top_k": 0, "top_p": 1.0, "min_p": 1e-4},
    "top-p alone": {"temp": 1.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0},
    "typical alone": {"temp": 1.0, "top_k": 0, "typical_p": 0.7, "top_p": 1.0, "min_p": 0.0},
    "typical": {"temp": 1.0, "top_k": 50, "typical_p": 0.7},
    "plain draw": {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "unscaled draw": {"temp": -1.0},
    "penalties": {"temp": 0.8, "repeat_penalty": 1.4, "frequency_penalty": 0.5},
    "rewards": {"temp": 0.0, "repeat_penalty": 0.7, "presence_penalty": -0.5},
    "greedy, penalties": {"temp": 0.0, "repeat_penalty": 1.2, "presence_penalty": 0.6},
    "mirostat": {"temp": 0.9, "mirostat_mode": 1},
    "mirostat 2": {"temp": 0.9, "mirostat_mode": 2},
}


def take(llm: llama_cpp.Llama, prompt: list[int], n: int, **sampling: Any) -> list[int]:
    """The first tokens that a model generates from scratch."""
    llm.reset()
    llm.set_seed(sampling.pop("seed", 1))
    tokens = []
    stream = llm.generate(prompt, reset=True, **sampling)
    for token in stream:
        tokens.append(token)
        if len(tokens) == n:
            break
    stream.close()
    return tokens


class Pair:
    """A stock model and the exact mode of its split."""

    def __init__(self, model: Path, core: Path, **options: Any) -> None:
        exact = {k: options.pop(k) for k in ("token_set", "whole_head", "learn") if k in options}
        self.stock = llama_cpp.Llama(str(model), **{**COMMON, **options})
        self.exact = TailoredLlama(core, mode="exact", **exact, **{**COMMON, **options})

    def close(self) -> None:
        self.stock.close()
        self.exact.close()


@pytest.fixture
def pair(tiny: Any, tiny_split: Any) -> Iterator[Callable[..., Pair]]:
    """Returns a function that loads a tiny model twice."""
    with contextlib.ExitStack() as stack:

        def get(name: str, model: dict[str, Any] | None = None, **options: Any) -> Pair:
            model = model or {}
            files = tiny_split(name, **model)
            return stack.enter_context(
                contextlib.closing(Pair(tiny(name, **model), files.core, **options))
            )

        yield get


PROMPTS = ([5, 300, 301, 302], [7, 400])


@pytest.mark.parametrize("table", TABLES)
def test_every_kind_of_head(pair: Callable[..., Pair], table: str) -> None:
    name, options = TABLES[table]
    n_vocab = options.get("n_vocab", 480 if name != "llama" else 517)
    both = pair(name, {**options, "n_vocab": n_vocab + MORE_ROWS})
    for sampling in ({"temp": 0.0}, {"temp": 1.0, "top_k": 20, "seed": 3}):
        expected = take(both.stock, PROMPTS[0], 60, **sampling)
        assert take(both.exact, PROMPTS[0], 60, **sampling) == expected
    stats = both.exact._exact.stats()
    assert stats.n_rejected > 0  # the set lacked tokens, so that there was something to prove


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2"])
def test_every_sampler(pair: Callable[..., Pair], name: str, sampling: str) -> None:
    both = pair(name, {"n_vocab": 2048})
    for seed, prompt in enumerate(PROMPTS):
        asked = {**SAMPLINGS[sampling], "seed": seed}
        assert take(both.exact, prompt, 150, **asked) == take(both.stock, prompt, 150, **asked)


def low_level_chains(vocab: Any, n_vocab: int) -> dict[str, list[Callable[[], Any]]]:
    """Chains that llama_cpp.Llama does not make itself."""
    bias = (llama_cpp.llama_logit_bias * 3)(
        *(llama_cpp.llama_logit_bias(t, b) for t, b in ((1900, 4.0), (350, -3.0), (2000, 2.5)))
    )
    breakers = (llama_cpp.ctypes.c_char_p * 1)(b"\n")
    biased = lambda: llama_cpp.llama_sampler_init_logit_bias(n_vocab, 3, bias)  # noqa: E731
    dry = lambda: llama_cpp.llama_sampler_init_dry(  # noqa: E731
        vocab, 2.0, 1.2, 1, 64, breakers, 1
    )
    greedy = llama_cpp.llama_sampler_init_greedy
    dist = lambda: llama_cpp.llama_sampler_init_dist(5)  # noqa: E731
    top_k = lambda: llama_cpp.llama_sampler_init_top_k(30)  # noqa: E731
    return {
        "bias, greedy": [biased, greedy],
        "bias, top-k": [biased, top_k, dist],
        "dry, greedy": [dry, greedy],
        "dry, top-k": [dry, top_k, dist],
        "xtc": [top_k, lambda: llama_cpp.llama_sampler_init_xtc(0.5, 0.05, 1, 9), dist],
        "xtc alone": [lambda: llama_cpp.llama_sampler_init_xtc(0.5, 0.05, 1, 9), dist],
        "top-n-sigma": [lambda: llama_cpp.llama_sampler_init_top_n_sigma(1.0), dist],
        "temp-ext": [top_k, lambda: llama_cpp.llama_sampler_init_temp_ext(1.0, 0.5, 1.0), dist],
        "top-k 300": [lambda: llama_cpp.llama_sampler_init_top_k(300), dist],
        "top-k 5000": [lambda: llama_cpp.llama_sampler_init_top_k(5000), dist],
        "min-p, min-keep": [lambda: llama_cpp.llama_sampler_init_min_p(0.3, 3), dist],
    }


@pytest.mark.parametrize("name", low_level_chains(None, 0))
def test_chains_of_other_samplers(pair: Callable[..., Pair], name: str) -> None:
    both = pair("llama", {"n_vocab": 2048})
    tokens = []
    for llm in (both.stock, both.exact):

        def make(*args: Any, llm: Any = llm, **kwargs: Any) -> Any:
            chain = internals.LlamaSampler()
            for sampler in low_level_chains(llm._model.vocab, 2048)[name]:
                llama_cpp.llama_sampler_chain_add(chain.sampler, sampler())
            return chain

        llm._init_sampler = make
        tokens.append([take(llm, prompt, 150) for prompt in PROMPTS])
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logit_bias(pair: Callable[..., Pair], temperature: float) -> None:
    both = pair("llama", {"n_vocab": 2048})
    asked: dict[str, Any] = {"max_tokens": 60, "temperature": temperature, "seed": 2}
    asked["logit_bias"] = {1900: 3.0, 350: -5.0, 2000: 2.5, 400: 1.0}
    texts = [
        llm.create_completion([5, 300, 301], **asked)["choices"] for llm in (both.stock, both.exact)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_grammars(pair: Callable[..., Pair], temperature: float) -> None:
    both = pair("llama", {"n_vocab": 2048})
    text = 'root ::= ("a" | "the" | "he" | [b-t] | " ")*'
    texts = []
    for llm in (both.stock, both.exact):
        grammar = llama_cpp.LlamaGrammar.from_string(text, verbose=False)
        asked: dict[str, Any] = {"max_tokens": 60, "temperature": temperature, "seed": 4}
        texts.append(llm.create_completion("the", grammar=grammar, **asked)["choices"][0]["text"])
    assert texts[0] == texts[1]


def repeat_rows(path: Path, out: Path, name: str, every: int) -> Path:
    """A copy of a model in which the rows of a table repeat."""
    header = GGUFHeader(path)
    tensor = header.tensors[name]
    data = bytearray(path.read_bytes())
    row = tensor.row_bytes
    for i in range(every, tensor.ne[1]):
        source = tensor.offset + (i % every) * row
        data[tensor.offset + i * row : tensor.offset + (i + 1) * row] = data[source : source + row]
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("every", [600, 1, 37])
def test_equal_logits(tiny: Any, tmp_path: Path, every: int) -> None:
    """Ties everywhere: greedy takes the lowest id; sorts of llama.cpp take their own order."""
    path = repeat_rows(tiny("llama", n_vocab=2048), tmp_path / "m.gguf", "output.weight", every)
    both = Pair(path, split_model(path, tmp_path).core)
    for name in ("greedy", "default", "hot", "min-p", "penalties", "mirostat 2"):
        for prompt in PROMPTS:
            asked = SAMPLINGS[name]
            assert take(both.exact, prompt, 80, **asked) == take(both.stock, prompt, 80, **asked)
    both.close()


@pytest.mark.parametrize("table", ["Q8_0", "Q8_0, soft cap", "Q4_0, 520", "F16, 517"])
@pytest.mark.parametrize("place", ["memory", "mapped", "streamed"])
def test_where_the_whole_head_lies(pair: Callable[..., Pair], table: str, place: str) -> None:
    name, options = TABLES[table]
    n_vocab = 20000 + options.get("n_vocab", 517)  # more than one chunk
    both = pair(name, {**options, "n_vocab": n_vocab}, whole_head=place)
    for sampling in ("greedy", "default", "plain draw"):
        asked = SAMPLINGS[sampling]
        expected = take(both.stock, PROMPTS[0], 30, **asked)
        assert take(both.exact, PROMPTS[0], 30, **asked) == expected
    whole = n_vocab * both.exact.store.head_row_bytes
    held = both.exact.memory_report().whole_head
    if place == "memory":
        assert held > whole
    elif place == "streamed" or table == "Q8_0":  # elsewhere chunks of logits or interleaved rows
        assert held < 0.95 * whole + 4 * 32 * 16384


def test_a_set_and_the_context_end(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048}, token_set=TokenSet(range(300, 1500)), n_ctx=64)
    tokens = []
    for llm in (both.stock, both.exact):
        out = llm.create_completion([5, 300, 301], max_tokens=-1, temperature=0.0)
        tokens.append((out["choices"], out["usage"]))
    assert tokens[0] == tokens[1]


def test_a_short_window_is_never_rolled_back(pair: Callable[..., Pair]) -> None:
    both = pair("gemma3", {"n_vocab": 2048}, swa_full=False)
    assert take(both.exact, PROMPTS[0], 80, temp=0.0) == take(both.stock, PROMPTS[0], 80, temp=0.0)
    stats = both.exact._exact.stats()
    assert stats.n_drafted == stats.n_blocks > 0  # one token a block


def test_every_state_in_a_block_is_stocks(pair: Callable[..., Pair]) -> None:
    """Interrupted anywhere, text, logits and what follows are as if nothing had been drafted."""
    both = pair("llama", {"n_vocab": 2048})
    for n in range(1, 24):
        streams = [llm.generate(PROMPTS[0], temp=0.0) for llm in (both.stock, both.exact)]
        for _ in range(n):
            assert next(streams[0]) == next(streams[1])
            assert both.exact.n_tokens == both.stock.n_tokens
            found, logits = both.exact.last_logits()
            raw = both.stock._ctx.get_logits_ith(-1)
            expected = np.ctypeslib.as_array(raw, shape=(2048,))[found]
            assert np.array_equal(logits, expected)
        for stream in streams:
            stream.close()
        # a prompt that goes on from here reuses what was decoded
        text = both.stock._input_ids.tolist()
        assert both.exact._input_ids.tolist() == text
        tokens = []
        for llm in (both.stock, both.exact):
            stream = llm.generate([*text, 450, 460], temp=0.0)
            tokens.append([next(stream) for _ in range(12)])
            stream.close()
            llm.reset()
        assert tokens[0] == tokens[1]


def test_tokens_can_be_forced_between(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    found = []
    for llm in (both.stock, both.exact):
        llm.set_seed(8)
        llm.eval(PROMPTS[0])
        llm._sampler = llm._init_sampler(temp=1.0, top_k=30, repeat_penalty=1.3)
        tokens = []
        for i in range(60):
            tokens.append(llm.sample())
            llm.eval([500 + i] if i % 7 == 3 else tokens[-1:])
        llm._sampler = None
        found.append(tokens)
    assert found[0] == found[1]


def test_single_samples(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    for llm in (both.stock, both.exact):
        llm.reset()
        llm.eval(PROMPTS[0])
    for _ in range(20):
        tokens = [llm.sample(temp=0.0) for llm in (both.stock, both.exact)]
        assert tokens[0] == tokens[1]
        both.stock.eval(tokens[:1])
        both.exact.eval(tokens[:1])


def test_stop_strings_while_streaming(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    whole = both.stock.create_completion("the", max_tokens=80, temperature=0.0)
    text = whole["choices"][0]["text"]
    for place in range(4, min(60, len(text) - 3), 7):
        stop = text[place : place + 3]
        asked: dict[str, Any] = {"max_tokens": 80, "temperature": 0.0, "stop": [stop]}
        chunks = []
        for llm in (both.stock, both.exact):
            stream = llm.create_completion("the", stream=True, **asked)
            chunks.append([c["choices"] for c in stream])
        assert chunks[0] == chunks[1]


def test_python_samplers_are_refused(pair: Callable[..., Pair]) -> None:
    both = pair("llama")
    chain = internals.LlamaSampler()
    chain.add_custom(lambda candidates: None)
    chain.add_greedy()
    both.exact._init_sampler = lambda *args, **kwargs: chain
    with pytest.raises(VocabTailorError, match="cannot be cloned"):
        next(both.exact.generate(PROMPTS[0]))


def test_learning_from_use(tiny: Any, tiny_split: Any) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    with contextlib.closing(TailoredLlama(core, mode="exact", **COMMON)) as llm:
        with pytest.raises(VocabTailorError, match="nothing was learned"):
            llm.learned_token_set()
        text = take(llm, PROMPTS[0], 60, temp=0.0)
        n_static = llm.active_ids.size
        first = llm.learned_token_set()
        static = set(llm.active_ids.tolist())
        # prompt and always-on tokens are active anyway
        assert set(first.ids.tolist()) == set(text) - static - set(PROMPTS[0])
        counts = first.provenance["learned"]
        assert all(1 <= counts[str(t)] <= text.count(t) for t in first.ids.tolist())
        assert llm.active_ids.size == n_static
        llm.set_token_set(first)
        before = llm.stats.rejected
        assert take(llm, PROMPTS[0], 60, temp=0.0) == text
        # at most the draft beyond the last token is rejected
        assert llm.stats.rejected - before <= 1 < before
        assert np.array_equal(llm.learned_token_set(decay=0.0).ids, first.ids)
    with contextlib.closing(TailoredLlama(core, mode="exact", token_set=first, **COMMON)) as llm:
        half = llm.learned_token_set(decay=0.5, least=0.0)
        assert half.provenance["learned"] == {t: n / 2 for t, n in counts.items()}
        kept = llm.learned_token_set(decay=0.5, least=1.0).ids
        assert kept.tolist() == [int(t) for t, n in counts.items() if n >= 2]
        with pytest.raises(VocabTailorError, match="decay"):
            llm.learned_token_set(decay=2.0)
    for options in ({"learn": True}, {"learn": True, "mode": "full"}):
        with pytest.raises(ValueError, match="learn"):
            TailoredLlama(core, **options, **COMMON)


def test_learned_tokens_stay_for_the_next_request(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048}, learn=True)
    rejected = []
    for _ in range(2):
        expected = take(both.stock, PROMPTS[0], 60, temp=0.0)
        assert take(both.exact, PROMPTS[0], 60, temp=0.0) == expected
        rejected.append(both.exact.stats.rejected)
    # at most the draft beyond the last token is rejected
    assert rejected[1] - rejected[0] <= 1 < rejected[0]


@pytest.mark.parametrize("sampling", ["greedy", "default", "plain draw", "penalties"])
def test_audits_know_the_whole_vocabularys_choice(tiny_split: Any, sampling: str) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    asked = SAMPLINGS[sampling]
    with (
        contextlib.closing(TailoredLlama(core, audit=1.0, **COMMON)) as llm,
        contextlib.closing(TailoredLlama(core, mode="full", **COMMON)) as full,
        contextlib.closing(TailoredLlama(core, **COMMON)) as alone,
    ):
        text = take(llm, PROMPTS[0], 60, **asked)
        assert text == take(alone, PROMPTS[0], 60, **asked)  # an audit changes nothing
        found = llm.audit_report()
        # the same text again, step by step, with the whole vocabulary's choice at each
        outside: list[int] = []
        full.set_seed(1)
        full.reset()
        full.eval(PROMPTS[0])
        chain = full._init_sampler(**asked)
        active = {*alone.active_ids.tolist(), *PROMPTS[0], *alone._variants.find(PROMPTS[0])}
        for token in text:
            clone = llama_cpp.llama_sampler_clone(chain.sampler)
            choice = full._hook.sample(clone, full._hook.n_outputs - 1)
            llama_cpp.llama_sampler_free(clone)
            if choice not in active:
                outside.append(choice)
            # the tailored chain draws and accepts at every step, so this one must, too
            follow(chain.sampler, token)
            full.eval([token])
        assert (found.audited, found.outside) == (60, len(outside))
        assert found.tokens == {t: outside.count(t) for t in outside}
        assert found.rate == len(outside) / 60
    with pytest.raises(ValueError, match="audit"):
        TailoredLlama(core, mode="full", audit=0.5, **COMMON)


def follow(chain: Any, token: int) -> None:
    """Make a chain draw once, and accept a token."""
    one = (llama_cpp.llama_token_data * 1)(llama_cpp.llama_token_data(token, 1.0, 0.0))
    array = llama_cpp.llama_token_data_array(one, 1, -1, False)
    llama_cpp.llama_sampler_apply(chain, llama_cpp.ctypes.byref(array))
    llama_cpp.llama_sampler_accept(chain, token)


@pytest.fixture(scope="module", params=["gemma", "smollm2"])
def real(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A real model, stock and exact with no set."""
    path: Path = request.getfixturevalue(request.param)
    files = request.getfixturevalue(f"{request.param}_split")
    both = Pair(path, files.core, n_ctx=512, n_threads=2, n_threads_batch=2)
    yield both
    both.close()


@pytest.mark.model
@pytest.mark.parametrize(
    "sampling", ["greedy", "default", "hot", "min-p", "penalties", "greedy, penalties"]
)
def test_real_models(real: Pair, sampling: str) -> None:
    for seed, text in enumerate(("The capital of Italy is", "def fibonacci(n):\n", "Il gatto")):
        prompt = real.stock.tokenize(text.encode())
        asked = {**SAMPLINGS[sampling], "seed": seed}
        assert take(real.exact, prompt, 64, **asked) == take(real.stock, prompt, 64, **asked)
