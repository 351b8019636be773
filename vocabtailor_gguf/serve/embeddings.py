"""Embeddings: a text of their own, beside the slots, since they need another kind of context."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llama_cpp
import numpy as np

from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.serve.errors import ApiError, queue_full
from vocabtailor_gguf.serve.schema import EmbeddingRequest


class _Embedding:
    """A model whose embeddings are of token ids instead of texts.

    Args:
        llm: A fork that embeds.
    """

    def __init__(self, llm: TailoredLlama) -> None:
        self._llm = llm
        self._ids: list[int] = []

    def __getattr__(self, name: str) -> Any:
        """Return what the model has."""
        return getattr(self._llm, name)

    def tokenize(self, text: bytes) -> list[int]:
        """Return the ids."""
        return self._ids

    def embed(self, ids: list[int]) -> Any:
        """Return the (n_embd,) embedding of token ids, of length 1."""
        self._ids = ids
        return llama_cpp.Llama.embed(self, "", normalize=True, truncate=False)


class Embedder:
    """Makes the embeddings of a server, one text after another.

    The context is made when the first text comes. Texts become a vector as the model's file says,
    else the mean of those of their tokens.

    Args:
        llm: The model that it is a fork of.
        limit: Requests that may wait.
    """

    def __init__(self, llm: TailoredLlama, limit: int) -> None:
        self._llm = llm
        self._limit = limit
        self._n_asked = 0  # requests that wait or are worked on
        self._embedding: _Embedding | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embeddings")

    async def answer(self, model: str, body: EmbeddingRequest) -> dict[str, Any]:
        """Return OpenAI's answer.

        Raises:
            ApiError: Too many requests wait, or a text is too long.
        """
        if self._n_asked > self._limit:
            raise queue_full(self._limit)
        texts = [body.input] if isinstance(body.input, str) else body.input
        inputs = [texts] if isinstance(texts[0], int) else list(texts)
        gone = threading.Event()
        self._n_asked += 1
        try:
            work = self._thread.submit(self._embed, inputs, gone)
            ids, vectors = await asyncio.wrap_future(work)
        finally:
            self._n_asked -= 1
            gone.set()
        n = sum(map(len, ids))
        return {
            "object": "list",
            "model": model,
            "data": [
                {"object": "embedding", "index": i, "embedding": _coded(v, body.encoding_format)}
                for i, v in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": n, "total_tokens": n},
        }

    def _embed(
        self, inputs: Sequence[Any], gone: threading.Event
    ) -> tuple[list[list[int]], list[list[float]]]:
        llm = self._llm
        ids = [llm.tokenize(x.encode("utf-8")) if isinstance(x, str) else x for x in inputs]
        for i, tokens in enumerate(ids):
            if not 0 < len(tokens) <= llm.n_batch:
                raise ApiError(
                    400, f"input {i} has {len(tokens)} tokens, expected 1 to {llm.n_batch}",
                    param="input",
                )  # fmt: skip
            if max(tokens) >= llm.n_vocab():
                raise ApiError(
                    400, f"token id {max(tokens)}, expected 0 to {llm.n_vocab() - 1}",
                    param="input",
                )  # fmt: skip
        if self._embedding is None:
            self._embedding = _Embedding(llm.fork(pooling_type=_pooling(llm)))
        vectors = []
        for tokens in ids:
            if gone.is_set():
                break
            vectors.append(self._embedding.embed(tokens))
        return ids, vectors

    def close(self) -> None:
        """Wait for the text that is worked on; the context is freed with the model."""
        self._thread.shutdown(cancel_futures=True)


def _pooling(llm: TailoredLlama) -> int:
    """Return llama.cpp's pooling type for the embeddings of a model."""
    named = f"{llm.metadata.get('general.architecture')}.pooling_type" in llm.metadata
    return int(
        llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED if named else llama_cpp.LLAMA_POOLING_TYPE_MEAN
    )


def _coded(vector: Sequence[float], encoding: str) -> Any:
    if encoding == "float":
        return vector
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode("ascii")
