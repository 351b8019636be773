"""Turn the declarations of vocabtailor.h into a Python module, so that no process parses C.

Usage: declare.py HEADER MODULE.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import cffi

MODULE = "vocabtailor_gguf.binding._declared"


def declarations(header: Path) -> str:
    """Return what a header declares between its two marks, plain enough for cffi."""
    text = header.read_text(encoding="utf-8")
    begin = text.index("/* -- declarations")
    return text[begin : text.index("/* -- end of declarations -- */")]


def declare(header: Path) -> cffi.FFI:
    """Return a cffi builder of the module for a header."""
    builder = cffi.FFI()
    builder.set_source(MODULE, None)
    builder.cdef(declarations(header))
    return builder


if __name__ == "__main__":
    declare(Path(sys.argv[1])).emit_python_code(sys.argv[2])
