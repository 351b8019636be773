"""The native library and the llama.cpp that it was built for."""

from __future__ import annotations

import sys

import llama_cpp
import numpy as np
import pytest
from conftest import TinySplit

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.types import parse_type, type_geometry
from vocabtailor_gguf.errors import BadFileError, VersionError, VocabTailorError
from vocabtailor_gguf.runtime.tokenizer import always_on


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_it_shares_the_ggml_that_llama_cpp_loaded() -> None:
    native.lib()
    with open("/proc/self/maps", encoding="utf-8") as f:
        mapped = {line.split()[-1] for line in f if "/lib" in line}
    for name in ("libllama.so", "libggml-base.so", "libggml-cpu.so"):
        found = [p for p in mapped if name in p]
        assert len(found) == 1
        assert "llama_cpp/lib" in found[0]


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "__version__", "9.9.9")
    with pytest.raises(VersionError, match=r"9\.9\.9; install that version or build"):
        native.lib.__wrapped__()


def test_it_was_built_for_the_llama_cpp_of_this_process() -> None:
    info = native.ffi.string(native.lib().vt_build_info()).decode()
    assert info.startswith(f"llama-cpp-python {llama_cpp.__version__}, llama ")
    assert llama_cpp.llama_version().decode() in info
    native.call("vt_check_runtime")


def test_without_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "__file__", "/nowhere/native.py")
    assert native._installed("lib").is_dir()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "IQ3_S"])
def test_values_that_ggml_would_abort_on_are_refused(value: float, kind: str) -> None:
    values = np.zeros((2, 256), dtype=np.float32)
    values[1, 7] = value
    block, size = type_geometry(parse_type(kind))
    source = values.view(np.uint8).reshape(-1)
    target = np.zeros(2 * 256 // block * size, dtype=np.uint8)
    arguments = [
        parse_type("F32"),
        native.ffi.from_buffer("uint8_t[]", source),
        source.size,
        parse_type(kind),
        native.ffi.from_buffer("uint8_t[]", target),
        target.size,
        2,
        256,
        2,
    ]
    with pytest.raises(BadFileError, match="rows"):
        native.call("vt_requantize", *arguments)


def test_a_core_has_no_tokens_to_keep(tiny_split: TinySplit) -> None:
    core = llama_cpp.llama_model_load_from_file(
        str(tiny_split("llama").core).encode(), llama_cpp.llama_model_default_params()
    )
    with pytest.raises(VocabTailorError, match="no tokenizer"):
        always_on(llama_cpp.llama_model_get_vocab(core))
    llama_cpp.llama_model_free(core)


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0", "Q4_K"])
def test_buffers_of_weights(kind: str) -> None:
    def ask(n_embd: int, n_rows: int, size: int = 32, which: int = parse_type(kind)) -> str:
        name = native.ffi.new("char[]", size)
        native.call("vt_weight_buffer", which, n_embd, n_rows, name, size)
        return str(native.ffi.string(name).decode())

    assert ask(256, 512) in ("CPU", "CPU_REPACK", "CPU_AARCH64", "AMX", "CPU_KLEIDIAI")
    assert ask(256, 512, 3) == ask(256, 512)[:2]
    for bad in ((0, 1), (-256, 1), (256, 0), (1 << 40, 1), (256, 1 << 40), (256, 1, 0)):
        with pytest.raises(VocabTailorError):
            ask(*bad)
    with pytest.raises(VocabTailorError):
        ask(256, 512, which=999)
