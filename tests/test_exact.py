"""Exact mode gives stock's tokens: every head, sampler and model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from exactpair import MORE_ROWS, PROMPTS, SAMPLINGS, Pair, take
from headbench import TABLES
from llama_cpp import _internals as internals

from vocabtailor_gguf import split_model
from vocabtailor_gguf.gguf.header import GGUFHeader


@pytest.mark.parametrize("table", TABLES)
def test_every_kind_of_head(pair: Callable[..., Pair], table: str) -> None:
    name, options = TABLES[table]
    n_vocab = options.get("n_vocab", 480 if name != "llama" else 517)
    both = pair(name, {**options, "n_vocab": n_vocab + MORE_ROWS})
    for sampling in ({"temp": 0.0}, {"temp": 1.0, "top_k": 20, "seed": 3}):
        expected = take(both.stock, PROMPTS[0], 60, **sampling)
        assert take(both.exact, PROMPTS[0], 60, **sampling) == expected
    stats = both.exact._session.verifier.stats()
    assert stats.n_rejected > 0  # the set lacked tokens, so that there was something to prove
    known = not table.startswith(("Q2_K", "F32"))
    assert both.exact._engine.whole_head.own_kernel == known


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
    "sampling",
    ["greedy", "default", "hot", "min-p", "top-p alone", "penalties", "greedy, penalties"],
)
def test_real_models(real: Pair, sampling: str) -> None:
    for seed, text in enumerate(("The capital of Italy is", "def fibonacci(n):\n", "Il gatto")):
        prompt = real.stock.tokenize(text.encode())
        asked = {**SAMPLINGS[sampling], "seed": seed}
        assert take(real.exact, prompt, 64, **asked) == take(real.stock, prompt, 64, **asked)
