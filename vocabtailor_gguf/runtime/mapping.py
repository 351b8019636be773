"""Whether a core is loaded as a map of its file.

ggml keeps many types of weights in a layout of its own: it copies them into memory of their own,
and the mapped pages that they were copied from stay resident, so such weights count twice.
"""

from __future__ import annotations

import functools
from typing import Any

import llama_cpp

from vocabtailor_gguf.binding.types import is_repacked
from vocabtailor_gguf.gguf.header import GGUFHeader

_MOST_COPIED = 0.25  # share of the bytes of a core up to which a map is worth its second copies


def choose_load_mode(params: Any, header: GGUFHeader, *, asked: bool) -> None:
    """Let llama.cpp read a core instead of mapping it where most of it would be there twice.

    Without a map every weight is in memory once, and no two processes share any.

    Args:
        params: ctypes llama_model_params; only its `load_mode` changes.
        header: Of the core.
        asked: Whether the caller said which it shall be; then nothing changes.
    """
    is_mapped = params.load_mode == llama_cpp.LLAMA_LOAD_MODE_MMAP
    if is_mapped and not asked and params.use_extra_bufts:
        if share_copied(header) > _MOST_COPIED:
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE


def share_copied(header: GGUFHeader) -> float:
    """Return the share of a core's bytes that ggml copies into a layout of its own."""
    copied = total = 0
    for tensor in header.tensors.values():
        total += tensor.n_bytes
        if len(tensor.ne) > 1 and not tensor.name.startswith("token_embd."):
            copied += tensor.n_bytes * _is_repacked(tensor.type, tensor.ne[0], tensor.ne[1])
    return copied / total if total else 0.0


def copied_bytes(header: GGUFHeader, params: Any) -> int:
    """Return the anonymous memory of a core that is loaded with ctypes llama_model_params."""
    total = sum(tensor.n_bytes for tensor in header.tensors.values())
    if params.load_mode == llama_cpp.LLAMA_LOAD_MODE_NONE:
        return total
    return int(total * share_copied(header)) if params.use_extra_bufts else 0


@functools.cache
def _is_repacked(type_: int, n_cols: int, n_rows: int) -> bool:
    return is_repacked(type_, n_cols, n_rows)
