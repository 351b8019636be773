"""Functions of the library that only tests call: those of native/include/vocabtailor_test.h."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cffi

from vocabtailor_gguf.binding import native

_HEADER = Path(__file__).parents[1] / "native" / "include" / "vocabtailor_test.h"


def _declare() -> cffi.FFI:
    text = _HEADER.read_text(encoding="utf-8")
    declared = cffi.FFI()
    declared.include(native.ffi)
    begin = text.index("/* -- declarations")
    declared.cdef(text[begin : text.index("/* -- end of declarations -- */")])
    return declared


ffi = _declare()
native.lib()  # loads llama.cpp first
_lib: Any = ffi.dlopen(str(native.library_path()))


def call(name: str, *args: Any) -> None:
    """As vocabtailor_gguf.binding.native.call."""
    error = native.ffi.new("char[]", 1024)
    native._raise_for(getattr(_lib, name)(*args, error, 1024), error)
