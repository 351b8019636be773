"""Standard streams of the command: UTF-8 whatever the console says, and errors in words."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Any

from vocabtailor_gguf.cli import _screen

_HANDLER = "vocabtailor.bytes"


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Give bytes that a name held for what they were, and a question mark for other surrogates."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    out = b"".join(bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else b"?" for c in found)
    return out, error.end


def prepare() -> None:
    """Let standard streams speak UTF-8, and be there.

    Where one is closed the next file that is opened would take its place, and what llama.cpp
    prints would go into that file.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_HANDLER, _as_bytes)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors=_HANDLER)
    if isinstance(sys.stdout, io.TextIOWrapper):
        out = _Stdout(sys.stdout.fileno(), "wb", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(out),
            encoding="utf-8",
            errors=_HANDLER,
            line_buffering=out.isatty(),
        )


class _Stdout(io.FileIO):
    """Stdout whose errors say whose they are."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as e:
            e.filename = "standard output"
            raise


def say(text: str) -> None:
    """Print an error, if there is anyone to read it."""
    if sys.stderr is None:  # then print() would take stdout
        return
    with contextlib.suppress(OSError, ValueError):
        print(f"vocabtailor: error: {_screen.shown(text, sys.stderr)}", file=sys.stderr, flush=True)


def flush() -> None:
    """Write what is still in the buffer of stdout.

    Raises:
        OSError: It cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def give_up() -> None:
    """Drop what stdout could not take, which the interpreter would complain about at exit."""
    try:
        flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
            flush()
