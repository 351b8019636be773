"""Colours on a terminal, and nowhere else."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TextIO

from vocabtailor_gguf.cli import _screen

_CODES = {"dim": "2", "warning": "33", "error": "31"}


def add_color(parser: argparse.ArgumentParser) -> None:
    """Add --color."""
    parser.add_argument(
        "--color", choices=["auto", "always", "never"], default="auto",
        help="colour what is not text of the model; auto: on a terminal, unless NO_COLOR is set",
    )  # fmt: skip


def is_colored(when: str, stream: TextIO) -> bool:
    """Tell whether a stream gets colours; see https://no-color.org."""
    if when != "auto":
        return when == "always"
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, kind: str, *, is_on: bool) -> str:
    """Return text in a colour: ``"dim"``, ``"warning"`` or ``"error"``."""
    return f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if is_on and text else text


class Notes:
    """Says on stderr what is not the model's text."""

    def __init__(self, when: str) -> None:
        self._is_colored = is_colored(when, sys.stderr)

    def tell(self, text: str, kind: str = "dim") -> None:
        """Print a note after the text that came before it."""
        sys.stdout.flush()
        told = paint(_screen.shown(text, sys.stderr), kind, is_on=self._is_colored)
        print(told, file=sys.stderr, flush=True)
