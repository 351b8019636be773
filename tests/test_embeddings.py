"""Embeddings, and batches through the low-level API, against stock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, take
from tinymodels import ARCHITECTURES

from vocabtailor_gguf import TailoredLlama, VocabTailorError

TEXTS = ["the cat", "a longer text about a cat and a dog", "x", "the dog"]
POOLING = {
    "none": llama_cpp.LLAMA_POOLING_TYPE_NONE,
    "mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "last": llama_cpp.LLAMA_POOLING_TYPE_LAST,
    "the model's": llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED,
}


@contextlib.contextmanager
def both(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], name: str, mode: Any, **options: Any
) -> Iterator[tuple[llama_cpp.Llama, TailoredLlama]]:
    asked = {**COMMON, **options}
    with (
        contextlib.closing(llama_cpp.Llama(str(tiny(name)), **asked)) as stock,
        contextlib.closing(TailoredLlama(tiny_split(name).core, mode=mode, **asked)) as ours,
    ):
        yield stock, ours


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2"])
def test_embeddings_are_stocks(
    tiny: Callable[..., Path],
    tiny_split: Callable[..., Any],
    name: str,
    pooling: str,
    normalize: bool,
) -> None:
    asked: dict[str, Any] = {"embedding": True, "pooling_type": POOLING[pooling]}
    with both(tiny, tiny_split, name, "exact", **asked) as (stock, ours):
        assert ours.pooling_type() == stock.pooling_type()
        for texts in (TEXTS, TEXTS[0], TEXTS * 5):
            expected = stock.embed(texts, normalize=normalize, return_count=True)
            assert ours.embed(texts, normalize=normalize, return_count=True) == expected


def test_a_fork_may_embed_while_its_model_generates(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any]
) -> None:
    mean = POOLING["mean"]
    with (
        both(tiny, tiny_split, "llama", "exact") as (stock, ours),
        contextlib.closing(
            llama_cpp.Llama(str(tiny("llama")), embedding=True, pooling_type=mean, **COMMON)
        ) as embedder,
    ):
        expected = take(stock, PROMPTS[0], 20)
        fork = ours.fork(pooling_type=mean)
        ours.set_seed(1)
        stream = ours.generate(PROMPTS[0])
        found = [next(stream) for _ in range(10)]
        assert fork.embed(TEXTS, normalize=True) == embedder.embed(TEXTS, normalize=True)
        found += [next(stream) for _ in range(10)]
        assert found == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_embeds(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], name: str
) -> None:
    asked: dict[str, Any] = {"embedding": True, "pooling_type": POOLING["mean"]}
    with both(tiny, tiny_split, name, "tailored", **asked) as (stock, ours):
        assert ours.embed(TEXTS) == stock.embed(TEXTS)


@pytest.mark.parametrize("sizes", [{"n_batch": 16}, {"n_batch": 32, "n_ubatch": 32}])
def test_batches_and_truncation(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], sizes: dict[str, int]
) -> None:
    asked: dict[str, Any] = {"embedding": True, "pooling_type": POOLING["mean"], **sizes}
    with both(tiny, tiny_split, "llama", "exact", **asked) as (stock, ours):
        assert ours.context_params.n_seq_max == stock.context_params.n_seq_max
        texts = [*TEXTS, "a cat and " * 30, *TEXTS]
        assert ours.embed(texts) == stock.embed(texts)
        for llm in (stock, ours):
            with pytest.raises(ValueError, match="exceed batch size"):
                llm.embed("a cat and " * 30, truncate=False)


def test_create_embedding(tiny: Callable[..., Path], tiny_split: Callable[..., Any]) -> None:
    with both(tiny, tiny_split, "llama", "exact", embedding=True) as (stock, ours):
        assert ours.create_embedding(TEXTS, model="m") == stock.create_embedding(TEXTS, model="m")


@pytest.mark.parametrize("mode", ["exact", "full"])
def test_a_model_that_embeds_also_writes(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], mode: Any
) -> None:
    with both(tiny, tiny_split, "llama", mode, embedding=True) as (stock, ours):
        for _ in range(2):
            for sampling in ({"temp": 0.0}, {"temp": 1.0}):
                found = [take(m, PROMPTS[0], 16, **sampling) for m in (stock, ours)]
                assert found[0] == found[1]
            assert ours.embed(TEXTS) == stock.embed(TEXTS)
        assert ours.n_tokens == 0


def test_batches_through_the_context(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any]
) -> None:
    rows = []
    with both(tiny, tiny_split, "llama", "exact") as (stock, ours):
        for llm in (stock, ours):
            llm._batch.set_batch([5, 300, 301], n_past=0, logits_all=False)
            llm._ctx.decode(llm._batch)
            llm._batch.set_batch([302], n_past=3, logits_all=False)
            llm._ctx.decode(llm._batch)
            row = np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(llm.n_vocab(),))
            rows.append(row.tobytes())
            llm.reset()
        assert rows[0] == rows[1]
        for bad in (-1, 10**6):
            ours._batch.set_batch([bad], n_past=0, logits_all=False)
            with pytest.raises(VocabTailorError, match="token id"):
                ours._ctx.decode(ours._batch)
        assert take(ours, PROMPTS[0], 12, temp=0.0) == take(stock, PROMPTS[0], 12, temp=0.0)


def test_batches_that_are_refused(tiny_split: Callable[..., Any]) -> None:
    with contextlib.closing(TailoredLlama(tiny_split("llama").core, **COMMON)) as llm:
        expected = take(llm, PROMPTS[0], 8, temp=0.0)
        session = llm._session
        assert session is not None
        ids = (llama_cpp.llama_token * 300)(*[5] * 300)
        for n in (0, -1, 300):  # more than n_batch
            batch = llama_cpp.llama_batch(n_tokens=n, token=ids)
            with pytest.raises(VocabTailorError, match="n_batch"):
                session.decode_batch(batch)
        with pytest.raises(VocabTailorError, match="expected token ids"):
            session.decode_batch(llama_cpp.llama_batch(n_tokens=1))
        assert take(llm, PROMPTS[0], 8, temp=0.0) == expected


@pytest.mark.model
def test_embeddings_of_a_real_model(gemma: Path, gemma_split: Any) -> None:
    asked: dict[str, Any] = {**COMMON, "embedding": True, "pooling_type": POOLING["mean"]}
    stock = llama_cpp.Llama(str(gemma), **asked)
    with contextlib.closing(TailoredLlama(gemma_split.core, **asked)) as ours:
        texts = ["The capital of France is Paris.", "Berlin", "def f(x): return x"]
        assert ours.embed(texts, normalize=True) == stock.embed(texts, normalize=True)
    stock.close()
