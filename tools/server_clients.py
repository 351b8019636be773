"""What the measurements of servers share: starting one, its memory, a streamed request."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

_PATIENCE = 120  # seconds for a model to be loaded


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: Where it listens.
        pid: Of the process that was started.
    """

    url: str
    pid: int

    def memory(self) -> dict[str, int]:
        """Return the proportional resident bytes of its processes, and their anonymous ones."""
        found = {"Pss": 0, "Pss_Anon": 0}
        for pid in _tree(self.pid):
            # a process may end meanwhile
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                    name, value = line.split(":")
                    if name in found:
                        found[name] += int(value.split()[0]) * 1024
        return {"resident": found["Pss"], "anonymous": found["Pss_Anon"]}


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


@contextlib.contextmanager
def started(module: str, *options: str, wait: str | None = "passive") -> Iterator[Server]:
    """Run a server as ``python -m module OPTIONS --port N`` until the block ends.

    Args:
        module: And a command of it.
        options: Of the command.
        wait: OMP_WAIT_POLICY, whether threads spin while they wait for work; None: unset.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *module.split(), *options, "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if wait is not None:
        environment["OMP_WAIT_POLICY"] = wait
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            end = time.monotonic() + _PATIENCE
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{' '.join(command)}: it does not answer")
                time.sleep(0.1)
            yield Server(url, process.pid)
        finally:
            process.send_signal(signal.SIGINT)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models").status_code == 200
    except httpx.TransportError:
        return False


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What a streamed request gave.

    Attributes:
        first: Seconds to the first text.
        seconds: To the end.
        n_chunks: Chunks with text; about the tokens.
        text: All of it.
    """

    first: float
    seconds: float
    n_chunks: int
    text: str


def stream(client: httpx.Client, path: str, body: dict[str, Any], *, leave: int = 0) -> Streamed:
    """Ask for a stream and read it, or leave it after some chunks.

    Raises:
        httpx.HTTPError: It was answered with an error, or broke.
        ValueError: It did not end as a stream does, or an error came in it.
    """
    began = time.perf_counter()
    first, texts, ended = 0.0, [], False
    with client.stream("POST", path, json={**body, "stream": True}) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if line.startswith("data: ") and data != "[DONE]":
                text = _text(json.loads(data))
                if text:
                    first = first or time.perf_counter() - began
                    texts.append(text)
            ended = ended or data == "[DONE]"
            if leave and len(texts) >= leave:
                ended = True
                break
    if not ended:
        raise ValueError("the stream has no end")
    return Streamed(first, time.perf_counter() - began, len(texts), "".join(texts))


def _text(chunk: dict[str, Any]) -> str:
    if "error" in chunk:
        raise ValueError(chunk["error"]["message"])
    for choice in chunk["choices"]:
        return str(choice.get("text") or choice.get("delta", {}).get("content") or "")
    return ""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of the values does not exceed, 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
