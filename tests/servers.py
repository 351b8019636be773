"""Servers on loopback, in a thread of this process."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai

from vocabtailor_gguf.serve.app import create_app
from vocabtailor_gguf.serve.listen import Listener
from vocabtailor_gguf.serve.load import load_pool
from vocabtailor_gguf.serve.pool import Pool
from vocabtailor_gguf.serve.preset import Preset
from vocabtailor_gguf.serve.server import Settings

OPTIONS: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
MODEL = "qwen2"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is Rome?"}]
PROMPTS = ("The capital of Italy is", "In the beginning there was a")
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0, "seed": 1},
    "seeded": {"temperature": 0.9, "seed": 7, "top_p": 0.9},
    "penalties": {"temperature": 1.1, "seed": 3, "frequency_penalty": 0.5, "presence_penalty": 0.2},
}


class Running:
    """A server that runs."""

    def __init__(self, pool: Pool, url: str) -> None:
        self.pool = pool
        self.url = url

    def client(self, **options: Any) -> openai.OpenAI:
        """A client that does not try again by itself."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", **{"api_key": "none", "max_retries": 0, **options}
        )


@contextlib.contextmanager
def serving(
    core: Path,
    *,
    slots: int = 2,
    queue: int = 4,
    settings: dict[str, Any] | None = None,
    preset: Preset | None = None,
    **options: Any,
) -> Iterator[Running]:
    """A server of a model, until the block ends."""
    pool = load_pool(str(core), slots=slots, queue=queue, preset=preset, **{**OPTIONS, **options})
    urls: list[str] = []
    ready = threading.Event()

    def note(url: str) -> None:
        urls.append(url)
        ready.set()

    given: dict[str, Any] = {"models": {"tiny": preset or Preset()}, **(settings or {})}
    server = Listener(create_app(pool, Settings(**given)), ready=note)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(60)
        yield Running(pool, urls[0])
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        pool.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether something becomes true within some time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Gate:
    """Holds generations at their first token until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.n_waiting = 0


def joined(stream: Any, *, chat: bool = False) -> str:
    parts = [c.choices[0] for c in stream if c.choices]
    return "".join((p.delta.content if chat else p.text) or "" for p in parts)


def metric(server: Running, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def post(server: Running, path: str, *, mode: str | None = None, **body: Any) -> list[Any]:
    """An answer as it is sent; the chunks of one that is streamed."""
    extra = {} if mode is None else {"vocabtailor": {"mode": mode}}
    answer = httpx.post(f"{server.url}/v1/{path}", json={**body, **extra}, timeout=60)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        return [answer.json()]
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]
