"""The native library and the llama.cpp that it was built for."""

from __future__ import annotations

import sys

import llama_cpp
import pytest

from vocabtailor_gguf import _native
from vocabtailor_gguf.errors import VersionError


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_it_shares_the_ggml_that_llama_cpp_loaded() -> None:
    _native.lib()
    with open("/proc/self/maps", encoding="utf-8") as f:
        mapped = {line.split()[-1] for line in f if "/lib" in line}
    for name in ("libllama.so", "libggml-base.so", "libggml-cpu.so"):
        found = [p for p in mapped if name in p]
        assert len(found) == 1
        assert "llama_cpp/lib" in found[0]


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "__version__", "9.9.9")
    with pytest.raises(VersionError, match=r"9\.9\.9; install that version or build"):
        _native.lib.__wrapped__()


def test_it_was_built_for_the_llama_cpp_of_this_process() -> None:
    info = _native.ffi.string(_native.lib().vt_build_info()).decode()
    assert info.startswith(f"llama-cpp-python {llama_cpp.__version__}, llama ")
    assert llama_cpp.llama_version().decode() in info
    _native.call("vt_check_runtime")


def test_without_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "__file__", "/nowhere/_native.py")
    assert _native._installed("lib").is_dir()
