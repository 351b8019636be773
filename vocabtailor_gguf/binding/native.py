"""Binding of the native library with cffi.

The declarations are the ones of ``include/vocabtailor.h``, which the build makes a module of (see
``native/declare.py``): a process that starts has no C to parse.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from vocabtailor_gguf.errors import (
    BadFileError,
    MismatchError,
    TokenIdError,
    VersionError,
    VocabTailorError,
)

_ERROR_SIZE = 1024

# vt_status -> exception; the numbers are those of vocabtailor.h
_EXCEPTIONS: dict[int, type[Exception]] = {
    2: BadFileError,
    3: BadFileError,
    4: MismatchError,
    5: TokenIdError,
    6: MemoryError,
    8: VersionError,
}


def _installed(name: str) -> Path:
    """Return the path of a file that the build puts into the package.

    A source tree that comes first on sys.path has none; then the installed package's is taken.
    """
    path = Path(__file__).parents[1] / name
    if path.exists():
        return path
    from importlib import metadata  # takes longer than all the rest of this module

    try:
        distribution = metadata.distribution("vocabtailor_gguf")
    except metadata.PackageNotFoundError as e:
        raise VersionError(f"{path}: missing; build and install vocabtailor_gguf first") from e
    return Path(str(distribution.locate_file(f"vocabtailor_gguf/{name}")))


def _declared() -> Any:
    """Return the FFI object of the module that the build has made of the header."""
    path = _installed("binding/_declared.py")
    name = "vocabtailor_gguf.binding._declared"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise VersionError(f"{path}: missing; install vocabtailor_gguf again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.ffi


ffi = _declared()


def library_path() -> Path:
    """Return where the native library lies."""
    name = {"win32": "vocabtailor.dll", "darwin": "libvocabtailor.dylib"}.get(
        sys.platform, "libvocabtailor.so"
    )
    return _installed(f"lib/{name}")


@functools.cache
def lib() -> Any:
    """Return the loaded library.

    ``import llama_cpp`` above has put llama.cpp into the process; the dynamic linker then resolves
    ours against those very libraries.

    Raises:
        VersionError: The installed llama-cpp-python is not the one this library was built for.
    """
    path = library_path()
    if sys.platform == "win32":
        os.add_dll_directory(str(Path(llama_cpp.__file__).parent / "lib"))
    try:
        loaded: Any = ffi.dlopen(str(path))
    except OSError as e:
        raise VersionError(f"{path}: cannot be loaded: {e}; install vocabtailor_gguf again") from e
    built_for = ffi.string(loaded.vt_build_info()).decode()
    found = f"llama-cpp-python {llama_cpp.__version__},"
    if not built_for.startswith(found):
        raise VersionError(
            f"{path}: built for {built_for}, but this environment has {found.rstrip(',')}; "
            "install that version or build vocabtailor_gguf again"
        )
    error = ffi.new("char[]", _ERROR_SIZE)
    _raise_for(loaded.vt_check_runtime(error, _ERROR_SIZE), error)
    return loaded


def _raise_for(status: int, error: Any) -> None:
    if status != 0:
        text = ffi.string(error).decode("utf-8", errors="replace")
        raise _EXCEPTIONS.get(status, VocabTailorError)(text or f"status {status}")


def call(name: str, *args: Any) -> None:
    """Call a function of the library that ends in ``char * err, size_t n_err``.

    Raises:
        VocabTailorError: Or a subclass, with the library's text.
    """
    function: Callable[..., int] = getattr(lib(), name)
    error = ffi.new("char[]", _ERROR_SIZE)
    _raise_for(function(*args, error, _ERROR_SIZE), error)


def params(ctype: str, **fields: Any) -> Any:
    """Return a new parameter struct, which begins with its own size."""
    out = ffi.new(f"{ctype} *", fields)
    out.struct_size = ffi.sizeof(ctype)
    return out


def read_array(name: str, handle: Any, dtype: type[Any]) -> Any:
    """Return what a function writes that takes an array, its size and where the number goes.

    Another thread may add to it between the two calls; then there is what fits.
    """
    n = ffi.new("size_t *")
    call(name, handle, ffi.NULL, 0, n)
    out = np.empty(n[0], dtype=dtype)
    call(name, handle, ffi.from_buffer(f"{np.dtype(dtype)}_t[]", out), out.size, n)
    return out[: n[0]]


def encode_path(path: str | os.PathLike[str]) -> bytes:
    """Return a path as the library takes it.

    Raises:
        BadFileError: The path holds a NUL.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise BadFileError(f"{text!r}: a path cannot contain NUL")
    return text.encode("utf-8") if sys.platform == "win32" else os.fsencode(text)


def pointer(ctype: str, value: Any) -> Any:
    """Return a cffi pointer of type `ctype` for a ctypes pointer of llama_cpp."""
    return ffi.cast(ctype, ctypes.cast(value, ctypes.c_void_p).value)
