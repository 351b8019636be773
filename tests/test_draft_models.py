"""Drafts of a `draft_model`: guesses of somebody else, which change no text."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from conftest import SplitFiles
from exactpair import Pair, take
from nativecheck import ROOT

from vocabtailor_gguf import TailoredLlama, split_model

LONG = {"n_vocab": 2048}
REPEATING = [5, *([300, 301, 302, 303, 304, 305] * 5), 400, 300, 301]


@pytest.fixture
def opened() -> Iterator[Callable[..., TailoredLlama]]:
    """Returns a function that opens a core."""
    made: list[TailoredLlama] = []

    def get(core: Path | str, **options: Any) -> TailoredLlama:
        made.append(
            TailoredLlama(core, **{"n_ctx": 1024, "n_threads": 1, "verbose": False, **options})
        )
        return made[-1]

    yield get
    for llm in made:
        llm.close()


class Oracle(llama_cpp.llama_speculative.LlamaDraftModel):  # type: ignore[misc]
    """Knows the text that follows, up to a token that there is not."""

    def __init__(self, text: list[int]) -> None:
        self.text = text
        self.n_asked = 0

    def __call__(self, input_ids: Any, /, **kwargs: Any) -> Any:
        self.n_asked += 1
        assert list(input_ids) == self.text[: len(input_ids)]
        return [*self.text[len(input_ids) :][:9], 2**31 - 1, 7]


def test_a_draft_model(pair: Callable[..., Pair], opened: Any) -> None:
    both = pair("llama", LONG)
    asked = {"temp": 1.0, "top_k": 20}
    text = take(both.stock, REPEATING, 100, **asked)
    oracle = Oracle(REPEATING + text)
    llm = opened(both.exact.model_path, n_ctx=256, draft_model=oracle)
    assert take(llm, REPEATING, 100, **asked) == text
    assert 0 < oracle.n_asked <= 14
    assert llm.stats.agreed > 0

    # what it says saves passes; how many drafts fail depends on what the text has brought near, too
    alone = opened(both.exact.model_path, n_ctx=256)
    assert take(alone, REPEATING, 100, **asked) == text
    assert llm.stats.passes < alone.stats.passes

    def fails(input_ids: Any, /, **kwargs: Any) -> Any:
        raise RuntimeError("drafts are out")

    llm = opened(both.exact.model_path, n_ctx=256, draft_model=fails)
    with pytest.raises(RuntimeError, match="drafts are out"):
        take(llm, REPEATING, 5)
    assert llm.n_tokens == 0


def _go(llm: llama_cpp.Llama, ids: list[int], n: int, **asked: Any) -> list[int]:
    """The first tokens after a prompt, of which what it shares with the text is kept."""
    llm.set_seed(4)
    stream = llm.generate(ids, **asked)
    found = [next(stream) for _ in range(n)]
    stream.close()
    return found


@pytest.mark.model
def test_a_small_model_drafts(
    smollm2: Path, smollm2_split: SplitFiles, opened: Any, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("d", ROOT / "examples" / "small_drafter.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    other = split_model(smollm2, tmp_path, output_tensor_type="q4_0")  # it errs now and then
    options = {"n_ctx": 200, "n_threads_batch": 1}
    small = opened(other.core, **{**options, "n_ctx": 150})
    stock = llama_cpp.Llama(str(smollm2), n_threads=1, verbose=False, **options)
    llm = opened(smollm2_split.core, draft_model=example.SmallModel(small, 4), **options)
    texts = [b"The harbour of the island was closed because", b"def mean(values):\n"]
    first, second = (stock.tokenize(text) for text in texts)
    sampled = {"temp": 0.8, "top_k": 40}
    kept = _go(stock, first, 40, temp=0.0)
    assert _go(llm, first, 40, temp=0.0) == kept
    # cut, repeated, continued, and to a length where the small model has no room any more
    for prompt, n, asked in (
        (first, 3, {"temp": 0.0}),
        (first + kept[:7], 20, sampled),
        (second, 11, {"temp": 0.0}),
        (first + kept, 30, {"temp": 0.0}),
        (first + kept, 30, sampled),
        (first, 140, {"temp": 0.0}),
        (first[:4], 9, sampled),
    ):
        assert _go(llm, prompt, n, **asked) == _go(stock, prompt, n, **asked)
    stock.close()
    assert llm.stats.together == 1 or llm.stats.agreed > 0
