"""The tail of llama.cpp's log, for errors that would otherwise have no reason."""

from __future__ import annotations

import collections
import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

import llama_cpp
from llama_cpp import _logger


@contextlib.contextmanager
def collect_log(n_lines: int = 50, *, forward: bool = True) -> Iterator[collections.deque[str]]:
    """Collect the last lines that llama.cpp logs; `forward` also sends them where they went."""
    lines: collections.deque[str] = collections.deque(maxlen=n_lines)

    def note(level: int, text: bytes, data: Any) -> None:
        line = text.decode("utf-8", errors="replace").strip(" .\n")
        if line:
            lines.append(line)
        if forward:
            _logger.llama_log_callback(level, text, data)

    callback = llama_cpp.llama_log_callback(note)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        llama_cpp.llama_log_set(_logger.llama_log_callback, ctypes.c_void_p(0))


def reason(lines: Iterable[str]) -> str:
    """Return what a log says about a failure: the lines that tell of an error, else its end."""
    kept = list(lines)
    errors = [line for line in kept if "error" in line.lower() or "failed" in line.lower()]
    return " | ".join((errors or kept)[-3:]) or "llama.cpp gave no reason"
