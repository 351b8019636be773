"""TailoredLlama against stock llama_cpp.Llama."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.errors import (
    BadFileError,
    MismatchError,
    TokenIdError,
)
from vocabtailor_gguf.runtime.tokenizer import Forms

Split = Any
PROMPTS = (
    "The capital of Italy is",
    "def fibonacci(n):\n",
    "Once upon a time, in a village by the sea, there lived",
)
COMMON: dict[str, Any] = {"n_ctx": 256, "n_threads": 2, "n_threads_batch": 2, "verbose": False}


def stock_logits(llm: llama_cpp.Llama) -> np.ndarray:
    """Logits of the last position of a stock model, (n_vocab,) f32."""
    return np.ctypeslib.as_array(llm._ctx.get_logits_ith(-1), shape=(llm.n_vocab(),)).copy()


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.fixture(scope="module", params=["gemma", "smollm2"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[llama_cpp.Llama, TailoredLlama, Split]]:
    """Stock model, full mode and the split files of a real model."""
    path: Path = request.getfixturevalue(request.param)
    files = request.getfixturevalue(f"{request.param}_split")
    stock = llama_cpp.Llama(str(path), **COMMON)
    full = TailoredLlama(files.core, mode="full", **COMMON)
    yield stock, full, files
    full.close()
    stock.close()


@pytest.mark.model
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 0.8, "seed": 7},
        {"temperature": 1.2, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3},
        {"temperature": 0.7, "repeat_penalty": 1.3, "frequency_penalty": 0.2, "seed": 1},
        {"temperature": 0.9, "mirostat_mode": 2, "seed": 11},
        {"temperature": 0.9, "typical_p": 0.7, "seed": 5},
    ],
    ids=lambda s: "-".join(s),
)
def test_full_mode_gives_stock_text(
    pair: tuple[llama_cpp.Llama, TailoredLlama, Split], prompt: str, sampling: dict[str, Any]
) -> None:
    stock, full, _ = pair
    expected = stock.create_completion(prompt, max_tokens=40, **sampling)
    found = full.create_completion(prompt, max_tokens=40, **sampling)
    assert found["choices"] == expected["choices"]
    assert found["usage"] == expected["usage"]


@pytest.mark.model
def test_logits_of_the_active_set_are_stock_bits(
    pair: tuple[llama_cpp.Llama, TailoredLlama, Split],
) -> None:
    stock, _, files = pair
    chosen = TokenSet(np.random.default_rng(0).integers(0, stock.n_vocab(), 5000))
    llm = TailoredLlama(files.core, mode="tailored", token_set=chosen, **COMMON)
    try:
        tokens = stock.tokenize((" ".join(PROMPTS) * 3).encode())
        stock.reset()
        for chunk in (tokens[:40], tokens[40:41], tokens[41:50]):
            stock.eval(chunk)
            llm.eval(chunk)
            ids, logits = llm.last_logits()
            assert set(chosen.ids) <= set(ids.tolist())
            assert set(chunk) <= set(ids.tolist())
            assert same_bits(logits, stock_logits(stock)[ids])
    finally:
        stock.reset()
        llm.close()


@pytest.mark.model
def test_long_prompts_are_cut_like_stock(gemma: Path, gemma_split: Split) -> None:
    """A prompt of several batches and micro-batches, with a batch of one token at the end."""
    sizes = {**COMMON, "n_ctx": 512, "n_batch": 100, "n_ubatch": 32}
    stock = llama_cpp.Llama(str(gemma), **sizes)
    full = TailoredLlama(gemma_split.core, mode="full", **sizes)
    tokens = np.random.default_rng(2).integers(300, 200_000, 301).tolist()
    stock.eval(tokens)
    full.eval(tokens)
    _, logits = full.last_logits()
    assert same_bits(logits, stock_logits(stock))
    full.close()
    stock.close()


@pytest.mark.model
def test_streaming_stops_and_prefix_reuse(
    pair: tuple[llama_cpp.Llama, TailoredLlama, Split],
) -> None:
    stock, full, _ = pair
    for prompt in (PROMPTS[0], PROMPTS[0] + " a city", PROMPTS[0] + " a city", PROMPTS[0]):
        asked: dict[str, Any] = {"max_tokens": 24, "temperature": 0.0, "stop": ["city", "\n\n"]}
        expected = [c["choices"] for c in stock.create_completion(prompt, stream=True, **asked)]
        found = [c["choices"] for c in full.create_completion(prompt, stream=True, **asked)]
        assert found == expected


@pytest.mark.model
def test_chat_with_the_template_of_the_store(smollm2: Path, smollm2_split: Split) -> None:
    stock = llama_cpp.Llama(str(smollm2), **COMMON)
    full = TailoredLlama(smollm2_split.core, mode="full", **COMMON)
    assert full.chat_format == stock.chat_format
    messages: Any = [{"role": "user", "content": "Name three colours."}]
    asked: dict[str, Any] = {"messages": messages, "max_tokens": 32, "temperature": 0.0}
    expected = stock.create_chat_completion(**asked)["choices"]
    assert full.create_chat_completion(**asked)["choices"] == expected
    chunks = list(full.create_chat_completion(stream=True, **asked))
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    assert text == expected[0]["message"]["content"]
    full.close()
    stock.close()


@pytest.mark.model
def test_grammar(pair: tuple[llama_cpp.Llama, TailoredLlama, Split]) -> None:
    stock, full, files = pair
    grammar = llama_cpp.LlamaGrammar.from_string('root ::= "yes" | "no" | [0-9]+', verbose=False)
    asked: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "grammar": grammar}
    expected = stock.create_completion("Is water wet? Answer:", **asked)["choices"]
    assert full.create_completion("Is water wet? Answer:", **asked)["choices"] == expected
    llm = TailoredLlama(files.core, mode="tailored", **COMMON)
    text = llm.create_completion("Is water wet? Answer yes or no:", **asked)["choices"][0]["text"]
    assert text in ("yes", "no") or text.isdigit()
    llm.close()


@pytest.fixture
def tailored(tiny_split: Callable[[str], Split]) -> Iterator[TailoredLlama]:
    llm = TailoredLlama(
        tiny_split("llama").core,
        mode="tailored",
        token_set=TokenSet([400, 300, 410]),
        prompt_expansion=False,
        **COMMON,
    )
    yield llm
    llm.close()


def test_only_the_active_set_can_be_produced(tailored: TailoredLlama) -> None:
    static = tailored.active_ids.tolist()
    assert static == sorted(static)
    assert {300, 400, 410} < set(static)
    assert len(static) < tailored.n_vocab()
    prompt = [450, 451, 450, 300]
    produced: list[int] = []
    for token in tailored.generate(prompt, temp=2.0, top_k=0, top_p=1.0, min_p=0.0):
        assert tailored.active_ids.tolist() == [*static, 450, 451]
        produced.append(token)
        if len(produced) == 100:
            break
    assert set(produced) <= {*static, 450, 451}
    assert len(set(produced)) > 20


def test_every_byte_and_end_of_text_stay_active(tailored: TailoredLlama) -> None:
    active = set(tailored.active_ids.tolist())
    for byte in range(256):
        text = f"<0x{byte:02X}>"
        ids = [i for i in range(tailored.n_vocab()) if tailored._model.token_get_text(i) == text]
        assert ids and set(ids) <= active
    vocab = tailored._model.vocab
    eog = {i for i in range(tailored.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, i)}
    assert eog and eog <= active
    assert set(tailored.tokenize(b"\n", add_bos=False)) <= active


def test_the_set_falls_back_however_a_request_ends(tailored: TailoredLlama) -> None:
    static = tailored.active_ids
    stream = tailored.generate([450, 460], temp=0.0)
    next(stream)
    assert tailored.active_ids.size == static.size + 2
    stream.close()
    assert np.array_equal(tailored.active_ids, static)

    stream = tailored.generate([450, 460], temp=0.0)
    next(stream)
    with pytest.raises(RuntimeError, match="mine"):
        stream.throw(RuntimeError("mine"))
    assert np.array_equal(tailored.active_ids, static)

    with pytest.raises(VocabTailorError, match="n_ctx"):
        list(tailored.generate([450] * 300))
    assert np.array_equal(tailored.active_ids, static)
    tailored.create_completion("hello", max_tokens=4)
    assert np.array_equal(tailored.active_ids, static)


def test_prompt_tokens_stay_active_where_a_prefix_is_reused(tailored: TailoredLlama) -> None:
    for prompt in ([450, 451], [450, 451, 452], [450, 451, 452]):
        stream = tailored.generate(prompt, temp=0.0)
        next(stream)
        assert tailored.active_ids[-len(prompt) :].tolist() == prompt
        stream.close()
    assert tailored.stats.misses == 2 + 3 + 3


def test_other_forms_of_the_prompts_words_join(tiny_split: Callable[[str], Split]) -> None:
    core = tiny_split("llama").core
    with contextlib.closing(TailoredLlama(core, mode="tailored", **COMMON)) as llm:
        static = llm.active_ids
        variants = Forms(llm._model.vocab)
        outside = set(range(llm.n_vocab())) - set(static.tolist())
        inside = next(i for i in static.tolist() if outside & set(variants.find([i]).tolist()))
        forms = variants.find([inside]).tolist()
        lacking = min(outside - set(forms))
        forms = variants.find([inside, lacking]).tolist()
        expected = [*static, lacking, *(i for i in forms if i in outside)]
        stream = llm.generate([inside, lacking], temp=0.0)
        next(stream)
        assert llm.active_ids.tolist() == expected
        llm.set_token_set(None)
        assert llm.active_ids.tolist() == expected
        assert llm.stats.misses == 1
        stream.close()
        assert np.array_equal(llm.active_ids, static)
        llm.eval([inside, lacking])
        assert llm.active_ids.tolist() == [*static, lacking]


def test_swapping_the_token_set(tailored: TailoredLlama) -> None:
    tailored.eval([10, 11, 450])
    _, before = tailored.last_logits()
    shared = dict(zip(tailored.active_ids.tolist(), before.tolist(), strict=True))
    tailored.set_token_set(TokenSet([470, 471]))
    ids, logits = tailored.last_logits()
    assert {470, 471, 450} < set(ids.tolist())
    assert 400 not in ids
    for i, logit in zip(ids.tolist(), logits.tolist(), strict=True):
        assert shared.get(i, logit) == logit
    tailored.set_token_set(None)
    assert 470 not in tailored.active_ids


def test_sets_and_files_that_do_not_fit(
    tiny_split: Callable[[str], Split], tailored: TailoredLlama, tmp_path: Path
) -> None:
    with pytest.raises(TokenIdError, match="9999"):
        tailored.set_token_set(TokenSet([9999]))
    with pytest.raises(MismatchError, match="tokenizer"):
        tailored.set_token_set(TokenSet([1], tokenizer="0" * 64))
    with pytest.raises(BadFileError, match="cannot be read"):
        tailored.set_token_set(tmp_path / "none.json")
    assert {300, 400} < set(tailored.active_ids.tolist())  # still the old set
    ours, other = tiny_split("llama"), tiny_split("qwen2")
    with pytest.raises(MismatchError, match=r"pair_id|architecture"):
        TailoredLlama(ours.core, vocab_path=other.vocab, **COMMON)
    with pytest.raises(MismatchError, match="core"):
        TailoredLlama(ours.core, vocab_path=ours.core, **COMMON)
    with pytest.raises(MismatchError, match="kind"):
        TailoredLlama(ours.vocab, vocab_path=ours.vocab, **COMMON)
    with pytest.raises(BadFileError, match="no such file"):
        TailoredLlama(tmp_path / "m.gguf", **COMMON)
    with pytest.raises(BadFileError, match="none"):
        TailoredLlama(tmp_path / "none.core.gguf", **COMMON)


def test_what_the_constructor_was_not_asked_for_says_so(tailored: TailoredLlama) -> None:
    with pytest.raises(RuntimeError, match="embedding=True"):
        tailored.embed("a")


def test_logit_bias_of_the_request(tailored: TailoredLlama) -> None:
    static = tailored.active_ids
    wanted = next(i for i in range(460, tailored.n_vocab()) if i not in static)
    asked: dict[str, Any] = {"max_tokens": 3, "temperature": 0.0}
    biased = tailored.create_completion([10], logit_bias={wanted: 1e4}, **asked)
    expected = tailored.detokenize([wanted] * 3, prev_tokens=[10]).decode(errors="ignore")
    assert biased["choices"][0]["text"] == expected
    assert np.array_equal(tailored.active_ids, static)
    plain = tailored.create_completion([10], **asked)["choices"][0]["text"]
    assert plain != expected  # nothing of the bias is left


@pytest.mark.parametrize(
    "bias", [{-1: 1e4}, {-2: 1e4, 400: 1.0}, {5000: 2.0}, {400: 1e4, 517: 1.0}]
)
def test_a_bias_out_of_range_does_what_stock_does(
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Split],
    monkeypatch: pytest.MonkeyPatch,
    bias: dict[int, float],
) -> None:
    # stock raises in a callback, which Python can only report
    monkeypatch.setattr(sys, "unraisablehook", lambda args: None)
    asked: dict[str, Any] = {"max_tokens": 3, "temperature": 0.0, "logit_bias": bias}
    stock = llama_cpp.Llama(str(tiny("llama")), **COMMON)
    ours = TailoredLlama(tiny_split("llama").core, **COMMON)
    with contextlib.closing(stock), contextlib.closing(ours):
        expected = stock.create_completion([10, 300], **asked)["choices"]
        assert ours.create_completion([10, 300], **asked)["choices"] == expected


def test_stopping_criteria_see_tokens_and_scores(tailored: TailoredLlama) -> None:
    seen: list[int] = []

    def stop(ids: Any, scores: Any) -> bool:
        seen.append(int(np.isfinite(np.asarray(scores)).sum()))
        assert len(scores) == tailored.n_vocab()
        return len(seen) == 3

    criteria = llama_cpp.StoppingCriteriaList([stop])
    tokens = list(tailored.generate([10, 450], temp=0.0, stopping_criteria=criteria))
    assert len(tokens) == 2
    assert seen == [tailored.active_ids.size + 1] * 3


@pytest.mark.parametrize("tokens", [[-1], [10**6], [1.5], [[1, 2]], ["a"], [2**40]], ids=str)
def test_bad_tokens(tailored: TailoredLlama, tokens: Any) -> None:
    with pytest.raises(TokenIdError):
        tailored.eval(tokens)
    tailored.eval([10])
    assert tailored.n_tokens == 1


def test_context_limit(tailored: TailoredLlama) -> None:
    tailored.eval([10] * 256)
    with pytest.raises(VocabTailorError, match="n_ctx"):
        tailored.eval([10])
    with pytest.raises(ValueError, match="context window"):
        tailored.create_completion([10] * 256)
    tailored.reset()
    tailored.eval([10])


@pytest.mark.parametrize("value", [-1, 2**31])
@pytest.mark.parametrize("name", ["n_ctx", "n_batch", "n_ubatch"])
def test_bad_sizes(tiny_split: Callable[[str], Split], name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        TailoredLlama(tiny_split("llama").core, **{**COMMON, name: value})


def test_context_size_of_the_model(tiny_split: Callable[[str], Split]) -> None:
    llm = TailoredLlama(tiny_split("llama").core, **{**COMMON, "n_ctx": 0})
    assert llm.n_ctx() == 256
    llm.close()


def test_closing(tiny_split: Callable[[str], Split]) -> None:
    llm = TailoredLlama(tiny_split("llama").core, **COMMON)
    with pytest.raises(VocabTailorError, match="nothing has been decoded"):
        llm.last_logits()
    stream = llm.generate([10], temp=0.0)
    next(stream)
    llm.close()
    llm.close()
    for call in (lambda: llm.eval([1]), llm.last_logits, lambda: next(stream), llm.reset):
        with pytest.raises(VocabTailorError, match="closed"):
            call()


def test_two_threads_get_an_error_or_the_right_answer(tailored: TailoredLlama) -> None:
    def work(outcome: list[str]) -> None:
        for _ in range(200):
            try:
                tailored.eval([10])
                outcome.append("done")
            except VocabTailorError as e:
                assert "another thread" in str(e) or "n_ctx" in str(e)
                outcome.append("refused")

    outcomes: list[list[str]] = [[], []]
    threads = [threading.Thread(target=work, args=(o,)) for o in outcomes]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [len(o) for o in outcomes] == [200, 200]
    assert sum(o.count("done") for o in outcomes) == tailored.n_tokens


@pytest.mark.model
def test_reports(gemma_split: Split) -> None:
    chosen = TokenSet(range(1000, 9000))
    llm = TailoredLlama(gemma_split.core, mode="tailored", token_set=chosen, **COMMON)
    llm.create_completion("Hello", max_tokens=8, temperature=0)
    stats, memory = llm.stats, llm.memory_report()
    assert stats.tokens == stats["tokens"] == 2 + 7
    assert stats.head_rows == llm.active_ids.size
    assert 8000 < stats.rows_read < 9000
    assert stats.ms > stats.ms_core > stats.ms_head > 0
    parts = memory.embedding + memory.head + memory.logits
    stock = 262_144 * (680 + 4)
    assert parts < 0.05 * stock
    assert memory.core < 80e6
    assert dict(memory).keys() >= {"embedding", "head", "logits", "tokenizer", "core", "context"}
    assert memory.anon > 0 and memory.file > 0
    llm.close()
