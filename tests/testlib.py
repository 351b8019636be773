"""Functions of the library that only tests call: those of native/include/vocabtailor_test.h."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import cffi

from vocabtailor_gguf.binding import native

_NATIVE = Path(__file__).parents[1] / "native"


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _declare() -> Any:
    build = _module(_NATIVE / "declare.py")
    declared = cffi.FFI()
    declared.set_source("testlib_declared", None)
    declared.include(build.declare(_NATIVE / "include" / "vocabtailor.h"))  # the package's types
    declared.cdef(build.declarations(_NATIVE / "include" / "vocabtailor_test.h"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "testlib_declared.py"
        declared.emit_python_code(str(path))
        return _module(path).ffi


ffi = _declare()
native.lib()  # loads llama.cpp first
_lib: Any = ffi.dlopen(str(native.library_path()))


def call(name: str, *args: Any) -> None:
    """As vocabtailor_gguf.binding.native.call."""
    error = native.ffi.new("char[]", 1024)
    native._raise_for(getattr(_lib, name)(*args, error, 1024), error)
