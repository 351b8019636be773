"""llama-cpp-python's own server with a split model, as the recipe starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import pytest
from recipes import recipe
from servers import CHAT, until

for needed in ("sse_starlette", "starlette_context", "pydantic_settings"):
    pytest.importorskip(needed)


def test_the_recipe(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "server.py"
    script.write_text(recipe("llama_cpp.server"), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    options = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}
    command = [sys.executable, str(script), "--model", str(tiny_split("qwen2").core),
               "--port", str(port)]  # fmt: skip
    for name, value in options.items():
        command += [f"--{name}", str(value)]

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/models").status_code == 200
        except httpx.TransportError:
            return False

    with subprocess.Popen(
        command, env={**os.environ, "OMP_WAIT_POLICY": "passive"}, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert until(lambda: process.poll() is not None or answers())
            stock = llama_cpp.Llama(str(tiny("qwen2")), **options, verbose=False)
            ask: dict[str, Any] = {
                "max_tokens": 24,
                "temperature": 0.9,
                "seed": 7,
                "repeat_penalty": 1,
            }
            expected = stock.create_completion("Rome is", **ask)["choices"][0]["text"]
            found = httpx.post(f"{url}/completions", json={"prompt": "Rome is", **ask}).json()
            assert found["choices"][0]["text"] == expected
            stock.reset()
            chat = stock.create_chat_completion(CHAT, **ask)["choices"][0]["message"]["content"]
            found = httpx.post(f"{url}/chat/completions", json={"messages": CHAT, **ask}).json()
            assert found["choices"][0]["message"]["content"] == chat
            stock.close()
        finally:
            process.send_signal(signal.SIGINT)
