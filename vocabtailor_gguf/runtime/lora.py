"""LoRA adapters, which change the core."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp

from vocabtailor_gguf.errors import BadFileError, UnsupportedError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.keys import EMBEDDING, HEAD, PER_LAYER
from vocabtailor_gguf.runtime.backend import collect_log, reason


def check_adapter(path: str) -> None:
    """Check that an adapter leaves the vocabulary's tables alone.

    Raises:
        BadFileError: The file is malformed.
        UnsupportedError: It does not; the text names the tensor.
    """
    for name in GGUFHeader(path, lenient=True).tensors:
        base = name.removesuffix(".lora_a").removesuffix(".lora_b")
        if base in (EMBEDDING, HEAD, PER_LAYER):
            raise UnsupportedError(
                f"lora_path: {path}: adapts {base}, which lies in the vocabulary store; merge it "
                "into the unsplit model, then split that"
            )


class Adapter:
    """A loaded adapter.

    Args:
        core: The `backend.Model` that it adapts.
        path: A GGUF file.
        scale: How much of it is added.

    Raises:
        BadFileError: llama.cpp cannot load it.
        UnsupportedError: It adapts a table of the vocabulary.
    """

    def __init__(self, core: Any, path: str, scale: float) -> None:
        check_adapter(path)
        self.path = path
        self.scale = scale
        with collect_log() as log:
            self.handle: Any = llama_cpp.llama_adapter_lora_init(core.model, path.encode("utf-8"))
        if not self.handle:  # a pointer to nothing, not None
            raise BadFileError(f"lora_path: {path}: {reason(log)}")

    def close(self) -> None:
        """Free it, before the core. Twice is allowed."""
        handle, self.handle = self.handle, None
        if handle:
            llama_cpp.llama_adapter_lora_free(handle)


def set_adapters(ctx: Any, adapters: Sequence[Adapter]) -> None:
    """Let a ctypes llama_context compute with adapters.

    Raises:
        BadFileError: llama.cpp refuses.
    """
    if not adapters:
        return
    handles = (llama_cpp.llama_adapter_lora_p_ctypes * len(adapters))(*(a.handle for a in adapters))
    scales = (ctypes.c_float * len(adapters))(*(a.scale for a in adapters))
    if llama_cpp.llama_set_adapters_lora(ctx, handles, len(adapters), scales):
        names = ", ".join(a.path for a in adapters)
        raise BadFileError(f"lora_path: {names}: llama.cpp cannot apply it to the core")
