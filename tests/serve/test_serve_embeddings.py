"""Embeddings through the server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np
import openai
import pytest
from servers import MODEL, OPTIONS, Running, serving, until

from vocabtailor_gguf.serve.embeddings import _Embedding


def test_embeddings_are_stocks(
    server: Running, client: openai.OpenAI, tiny: Callable[..., Path]
) -> None:
    """Of a model that names no pooling: the mean, of length 1."""
    mean = llama_cpp.LLAMA_POOLING_TYPE_MEAN
    texts = ["the cat", "a longer text about a cat", "the cat"]
    with contextlib.closing(
        llama_cpp.Llama(str(tiny(MODEL)), embedding=True, pooling_type=mean, **OPTIONS)
    ) as stock:
        expected = [stock.embed(text, normalize=True) for text in texts]
        ids = [stock.tokenize(text.encode()) for text in texts]
    for given in (texts, ids):
        raw = httpx.post(f"{server.url}/v1/embeddings", json={"input": given}).json()
        assert [item["embedding"] for item in raw["data"]] == expected
        assert raw["usage"]["prompt_tokens"] == sum(map(len, ids))
    found = client.embeddings.create(model="tiny", input=texts)  # as base64
    vectors = [np.asarray(item.embedding, dtype=np.float32) for item in found.data]
    assert np.array_equal(vectors, np.asarray(expected, dtype=np.float32))
    one = client.embeddings.create(model="tiny", input=ids[0], encoding_format="float")
    assert one.data[0].embedding == expected[0]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[int], threading.Event]]:
    """The lengths of texts that embeddings are made of, which wait until the event is set."""
    lengths: list[int] = []
    opened = threading.Event()
    embed = _Embedding.embed

    def wait(self: _Embedding, ids: list[int]) -> Any:
        lengths.append(len(ids))
        assert opened.wait(60)
        return embed(self, ids)

    monkeypatch.setattr(_Embedding, "embed", wait)
    yield lengths, opened
    opened.set()


def test_too_many_and_those_that_go(core: Path, held: tuple[list[int], threading.Event]) -> None:
    lengths, opened = held
    with serving(core, slots=1, queue=0) as server, ThreadPoolExecutor(1) as threads:
        url = f"{server.url}/v1/embeddings"
        first = threads.submit(httpx.post, url, json={"input": [[5], [5, 6]]})
        assert until(lambda: lengths == [1])
        refused = httpx.post(url, json={"input": "a"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        opened.set()
        assert first.result().status_code == 200
        opened.clear()
        with pytest.raises(httpx.TimeoutException):
            httpx.post(url, json={"input": [[7, 8, 9], [5]]}, timeout=httpx.Timeout(60, read=0.3))
        assert lengths == [1, 2, 3]
        assert until(lambda: 'status="499"' in httpx.get(f"{server.url}/metrics").text)
        opened.set()
        assert until(lambda: httpx.post(url, json={"input": [[5] * 4]}).status_code == 200)
        assert lengths == [1, 2, 3, 4]
