"""A server of a tiny model, and the stock model beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import openai
import pytest
from servers import MODEL, OPTIONS, Gate, Running, serving

from vocabtailor_gguf.serve.watch import Watch


@pytest.fixture(scope="module")
def core(tiny_split: Callable[..., Any]) -> Path:
    found: Path = tiny_split(MODEL).core
    return found


@pytest.fixture(scope="module")
def server(core: Path) -> Iterator[Running]:
    with serving(core) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def stock(tiny: Callable[..., Path]) -> Iterator[llama_cpp.Llama]:
    llm = llama_cpp.Llama(str(tiny(MODEL)), **OPTIONS)
    yield llm
    llm.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    held = Gate()
    note = Watch.note

    def wait(self: Watch, is_end: bool) -> None:
        note(self, is_end)
        held.n_waiting += 1
        assert held.opened.wait(60)

    monkeypatch.setattr(Watch, "note", wait)
    yield held
    held.opened.set()
