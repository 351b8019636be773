"""Log-probabilities against those that stock gives with all its logits."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from vocabtailor_gguf import TailoredLlama, VocabTailorError
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import TokenIdError

COMMON: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
NEAR = 1e-5
TEXT = "The river rose overnight; nobody had seen it coming. It was the third flood in a year. " * 3


def stock_logprobs(model: Path, tokens: list[int], **options: Any) -> NDArray[np.float64]:
    """Return (n, n_vocab) log-probabilities after each token."""
    llm = llama_cpp.Llama(str(model), logits_all=True, **{**COMMON, **options})
    llm.eval(tokens)
    logits = llm.scores[: len(tokens)].astype(np.float64)
    llm.close()
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("mode", ["exact", "full"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("llama", {}), ("gemma2", {}), ("granite", {}), ("phi2", {}), ("gemma3n", {}), ("mamba", {})],
)
def test_scores_are_stocks(
    tiny: Any, tiny_split: Any, name: str, options: dict[str, Any], mode: Any
) -> None:
    random = np.random.default_rng(3)
    core = tiny_split(name, **options).core
    sizes: dict[str, Any] = {"n_batch": 64, "n_ubatch": 32}
    with contextlib.closing(TailoredLlama(core, mode=mode, **{**COMMON, **sizes})) as llm:
        for n in (1, 2, 100):
            tokens = random.integers(0, llm.n_vocab(), n).tolist()
            expected = stock_logprobs(tiny(name, **options), tokens, **sizes)
            found = llm.score(tokens, top=5)
            assert found.tokens.tolist() == tokens
            assert found.logprobs.dtype == np.float32 and found.logprobs.shape == (n,)
            assert np.isnan(found.logprobs[0]) and found.top[0] == {}
            for i in range(1, n):
                assert abs(found.logprobs[i] - expected[i - 1, tokens[i]]) < NEAR
                best = np.argsort(-expected[i - 1], kind="stable")[:5]
                assert list(found.top[i]) == best.tolist()
                assert (
                    np.abs(np.array([*found.top[i].values()]) - expected[i - 1, best]).max() < NEAR
                )


def test_tailored_mode_scores_over_its_set(tiny: Any, tiny_split: Any) -> None:
    tokens = [5, 300, 301, 302, 400, 12]
    expected = stock_logprobs(tiny("llama"), tokens)
    with contextlib.closing(
        TailoredLlama(tiny_split("llama").core, mode="tailored", **COMMON)
    ) as llm:
        found = llm.score(tokens, top=3)
        assert found.over == "active set"
        active = llm.active_ids
        inside = expected[:, active]
        inside = inside - np.log(np.exp(inside).sum(axis=1, keepdims=True))
        places = {int(t): i for i, t in enumerate(active)}
        for i in range(1, len(tokens)):
            assert abs(found.logprobs[i] - inside[i - 1, places[tokens[i]]]) < NEAR
            assert max(found.top[i].values()) == pytest.approx(inside[i - 1].max(), abs=NEAR)
        true = llm.score(tokens, over="vocabulary")
        assert true.over == "vocabulary"
        assert abs(true.logprobs[1:] - expected[np.arange(5), tokens[1:]]).max() < NEAR


@pytest.mark.parametrize("name", ["llama", "mamba"])  # one memory cannot be cut
def test_continuations_of_one_context(tiny_split: Any, name: str) -> None:
    with contextlib.closing(TailoredLlama(tiny_split(name).core, **COMMON)) as llm:
        context, choices = [5, 300, 301], [[302], [303, 304, 305], [302, 17]]
        before = llm.stats.tokens
        found = llm.score_continuations(context, choices, top=2)
        if name == "llama":
            # nothing comes after the last token of a continuation
            assert llm.stats.tokens - before == 3 + 0 + 2 + 1
        for choice, score in zip(choices, found, strict=True):
            whole = llm.score([*context, *choice])
            assert score.tokens.tolist() == choice
            assert np.abs(score.logprobs - whole.logprobs[3:]).max() < NEAR
            assert score.total == pytest.approx(whole.logprobs[3:].sum(), abs=1e-4)
            assert all(len(t) == 2 for t in score.top)
        with pytest.raises(VocabTailorError, match="context"):
            llm.score_continuations([], choices)


def test_what_comes_after_a_score(tiny: Any, tiny_split: Any) -> None:
    """The text is the scored one, and generations go on as stock's."""
    core = tiny_split("llama").core
    stock = llama_cpp.Llama(str(tiny("llama")), **COMMON)
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm:
        stream = llm.generate([7, 400], temp=0.0)
        next(stream)
        llm.score([5, 300, 301])
        with pytest.raises(VocabTailorError, match=r"another request|changed"):
            next(stream)
        assert llm.n_tokens == 3
        for prompt in ([5, 300, 301, 302], [5, 300, 301], [9, 8]):
            expected = stock.generate(prompt, temp=0.0)
            found = llm.generate(prompt, temp=0.0)
            assert [next(found) for _ in range(9)] == [next(expected) for _ in range(9)]
    stock.close()


def test_a_text_that_does_not_fit_says_so(tiny_split: Any) -> None:
    with contextlib.closing(TailoredLlama(tiny_split("llama").core, **COMMON)) as llm:
        with pytest.raises(VocabTailorError, match="n_ctx"):
            llm.score([5] * 300)
        with pytest.raises(TokenIdError):
            llm.score([10**6])
        assert llm.score("").tokens.size <= 1
        assert llm.score([5, 6]).logprobs.size == 2


@pytest.fixture(params=["gemma", "smollm2"])
def real(request: pytest.FixtureRequest) -> Iterator[tuple[Path, TailoredLlama]]:
    path = request.getfixturevalue(request.param)
    core = request.getfixturevalue(f"{request.param}_split").core
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm:
        yield path, llm


@pytest.mark.model
def test_real_models(real: tuple[Path, TailoredLlama]) -> None:
    path, llm = real
    tokens = llm.tokenize(TEXT.encode())
    expected = stock_logprobs(path, tokens)
    tracemalloc.start()
    found = llm.score(tokens, top=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        np.abs(found.logprobs[1:] - expected[np.arange(len(tokens) - 1), tokens[1:]]).max() < NEAR
    )
    for i in range(1, len(tokens)):
        best = np.argsort(-expected[i - 1], kind="stable")[:10]
        assert np.abs(np.array([*found.top[i].values()]) - expected[i - 1, best]).max() < NEAR
    assert peak < 4 * llm.n_vocab() * len(tokens) / 20  # never the logits of all positions


def test_the_command(
    tiny_split: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = str(tiny_split("llama").core)
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    assert main(["score", "-m", core, "-f", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    with contextlib.closing(TailoredLlama(core, **{**COMMON, "n_ctx": 2048})) as llm:
        tokens = llm.tokenize(TEXT.encode())
        logprobs = llm.score(tokens).logprobs[1:].astype(np.float64)
    assert found["tokens"] == len(tokens) == found["scored"] + 1
    assert found["perplexity"] == pytest.approx(math.exp(-logprobs.mean()), rel=1e-4)
    error = found["perplexity"] * logprobs.std(ddof=1) / math.sqrt(logprobs.size)
    assert found["perplexity_error"] == pytest.approx(error, rel=1e-3)
    assert main(["score", "-m", core, "-f", str(path), "-c", "64"]) == 0  # in windows
    assert f"over {len(tokens) - 1:,} tokens" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["score", "-m", core, "-f", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    path.write_text("", encoding="utf-8")
    assert main(["score", "-m", core, "-f", str(path)]) == 1
    assert "two at least" in capsys.readouterr().err
