"""Arguments of the constructor: what it takes, and checks that name what does not fit."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, get_args

import llama_cpp
import numpy as np

from vocabtailor_gguf.binding.types import type_geometry, type_name
from vocabtailor_gguf.binding.verifier import MAX_BLOCK
from vocabtailor_gguf.binding.whole_head import Placement
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.drafts import Drafts
from vocabtailor_gguf.runtime.owner import Mode
from vocabtailor_gguf.runtime.states import Over

_Init = Callable[..., None]

_NO_POOLING = int(llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED)  # the model's own
_LAST_POOLING = int(llama_cpp.LLAMA_POOLING_TYPE_RANK)
_SIZES = ("n_ctx", "n_batch", "n_ubatch")
_WHOLE_TYPES = frozenset({0, 1, 30})  # F32, F16 and BF16 of enum ggml_type
_MOST_BYTES = 127  # of a key or a text in llama_model_kv_override, without the NUL
_DEFAULT_THREADS = 4  # GGML_DEFAULT_N_THREADS: what ggml takes where it is asked for none


def with_upstream(init: _Init) -> _Init:
    """Let a constructor that hands arguments on to ``llama_cpp.Llama`` show them as its own."""
    own = inspect.signature(init)
    upstream = inspect.signature(llama_cpp.Llama.__init__)
    rest = inspect.Parameter.VAR_KEYWORD
    shown = [p for p in own.parameters.values() if p.kind is not rest]
    theirs = [p for p in upstream.parameters.values() if p.name not in own.parameters]
    shown += [p for p in theirs if p.kind is inspect.Parameter.KEYWORD_ONLY]
    shown += [p for p in own.parameters.values() if p.kind is rest]
    init.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
    return init


def check_path(name: str, path: str | os.PathLike[str]) -> None:
    """Check that llama-cpp-python can open a file by the name that an argument gives.

    Raises:
        ValueError: It cannot; the text names the argument.
    """
    try:
        backend.check_path(path)
    except BadFileError as e:
        raise ValueError(f"{name}: {e}") from None


def check_own(
    mode: str,
    whole_head: str,
    over: str,
    drafts: str,
    *,
    draft_max: int | None,
    learn: bool,
    audit: float,
) -> None:
    """Check this package's own arguments.

    Raises:
        ValueError: One does not fit; the text names it.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode: found {mode!r}, expected one of {', '.join(get_args(Mode))}")
    if whole_head not in get_args(Placement):
        places = ", ".join(get_args(Placement))
        raise ValueError(f"whole_head: found {whole_head!r}, expected one of {places}")
    if drafts not in get_args(Drafts):
        raise ValueError(f"drafts: found {drafts!r}, expected one of {', '.join(get_args(Drafts))}")
    if draft_max is not None and not 1 <= draft_max <= MAX_BLOCK:
        raise ValueError(f"draft_max: found {draft_max}, expected 1 to {MAX_BLOCK}")
    if over not in get_args(Over):
        raise ValueError(
            f"logprobs_over: found {over!r}, expected one of {', '.join(get_args(Over))}"
        )
    if not 0 <= audit <= 1 or (audit and mode != "tailored"):
        raise ValueError(f"audit: found {audit}, mode {mode}: expected 0 to 1, mode tailored")
    if learn and mode != "exact" and not audit:
        raise ValueError("learn: only exact mode and audits find tokens to learn")


def check_upstream(arguments: Mapping[str, Any]) -> None:
    """Check arguments of ``llama_cpp.Llama`` before a file is opened.

    Raises:
        ValueError: One does not fit; the text names it.
    """
    for name in _SIZES:
        value = arguments.get(name, 512)
        least = 0 if name == "n_ctx" else 1  # 0: the model's own
        if not least <= value < 2**31:
            raise ValueError(f"{name}: found {value}, expected {least} to 2**31 - 1")
    if arguments.get("lora_path") is not None:
        check_path("lora_path", arguments["lora_path"])
    for name in ("type_k", "type_v"):
        if arguments.get(name) is not None and not _is_type(arguments[name]):
            raise ValueError(f"{name}: found {arguments[name]}, expected a ggml_type")
    type_v = arguments.get("type_v")
    if type_v is not None and type_v not in _WHOLE_TYPES and not arguments.get("flash_attn"):
        raise ValueError(f"type_v: {type_v}: a quantised V cache needs flash_attn=True")
    check_pooling(arguments.get("pooling_type", _NO_POOLING))
    _check_tensor_split(arguments.get("tensor_split"))
    _check_overrides(arguments.get("kv_overrides"))


def _is_type(value: Any) -> bool:
    from gguf.constants import GGMLQuantizationType  # slow to import, and seldom asked for

    return value in frozenset(int(t) for t in GGMLQuantizationType)


def check_pooling(pooling_type: Any) -> None:
    """Check a llama_pooling_type, of which llama.cpp would abort at one that it does not know.

    Raises:
        ValueError: There is none such.
    """
    if not isinstance(pooling_type, int) or not _NO_POOLING <= pooling_type <= _LAST_POOLING:
        raise ValueError(
            f"pooling_type: found {pooling_type!r}, expected {_NO_POOLING} to {_LAST_POOLING}"
        )


def check_cache_types(header: GGUFHeader, arguments: Mapping[str, Any]) -> None:
    """Check that blocks of the KV cache's types fit a model, where llama.cpp would abort.

    Args:
        header: Of the core.
        arguments: Of ``llama_cpp.Llama``.

    Raises:
        ValueError: They do not; the text names the argument.
    """
    arch = header.get("general.architecture")
    heads, width = (
        header.get(f"{arch}.attention.head_count"),
        header.get(f"{arch}.embedding_length"),
    )
    for name, key in (("type_k", "key_length"), ("type_v", "value_length")):
        size = header.get(f"{arch}.attention.{key}")
        if size is None and isinstance(heads, int) and isinstance(width, int) and heads:
            size = width // heads
        if arguments.get(name) is None or not isinstance(size, int):
            continue
        try:
            block = type_geometry(arguments[name])[0]
        except VocabTailorError as e:
            raise ValueError(f"{name}: {e}") from None
        many = header.get(f"{arch}.attention.head_count_kv", heads)
        least = int(np.min(many)) if many is not None else 1
        if least * size % block:
            raise ValueError(
                f"{name}: {type_name(arguments[name])} has blocks of {block} values, which do not "
                f"fit {least} heads of {size}"
            )


def _check_tensor_split(split: Any) -> None:
    if split is None:
        return
    most = llama_cpp.LLAMA_MAX_DEVICES
    if len(split) > most or not all(isinstance(x, int | float) for x in split):
        raise ValueError(f"tensor_split: {len(split)} values, expected at most {most} numbers")


def _check_overrides(overrides: Any) -> None:
    if overrides is None:
        return
    if not isinstance(overrides, Mapping):
        raise ValueError(f"kv_overrides: found {type(overrides).__name__}, expected a dict")
    for key, value in overrides.items():
        if not isinstance(key, str) or len(key.encode("utf-8", "replace")) > _MOST_BYTES:
            raise ValueError(f"kv_overrides: key {key!r}: expected up to {_MOST_BYTES} bytes")
        where = f"kv_overrides[{key!r}]"
        if isinstance(value, str):
            if len(value.encode("utf-8", "replace")) > _MOST_BYTES:
                raise ValueError(f"{where}: a text of more than {_MOST_BYTES} bytes is too long")
        elif not isinstance(value, bool | int | float):
            kind = type(value).__name__
            raise ValueError(f"{where}: found {kind}, expected bool, int, float or str")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{where}: found {value}, expected a number of 64 bits")


def n_threads(asked: int) -> int:
    """Return the threads that ggml takes where it is asked for `asked` of them."""
    return asked if asked > 0 else _DEFAULT_THREADS


def trained_context(header: GGUFHeader, overrides: Mapping[str, Any]) -> int:
    """Return the context length of a model, or what a user puts in its place.

    Raises:
        BadFileError: The model does not tell.
    """
    key = f"{header.require('general.architecture', str)}.context_length"
    own = overrides.get(key)
    if isinstance(own, int) and not isinstance(own, bool):
        return own
    return int(header.require(key, int))


def of_core(params: Any) -> Any:
    """Leave out of ctypes llama_model_params the overrides that are not for a core.

    Those of the tokenizer are for the vocabulary; a core has stub rows, and none.

    Returns:
        The array that the parameters point to from here on.
    """
    if not params.kv_overrides:
        return None
    kept = []
    for one in backend.overrides_of(params):
        key = one.key.decode("utf-8", "replace")
        if not key.startswith(("tokenizer.", "vocabtailor.")) and not key.endswith(".vocab_size"):
            kept.append(one)
    array = (llama_cpp.llama_model_kv_override * (len(kept) + 1))(*kept)
    params.kv_overrides = array
    return array
