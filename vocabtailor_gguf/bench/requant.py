"""The unsplit model with a head of another type: what quantising it alone gains and costs.

As a module it is a child, for llama.cpp aborts where a type does not fit.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf.binding.types import parse_type, type_geometry, type_name
from vocabtailor_gguf.child import run_child
from vocabtailor_gguf.errors import BadFileError, UnsupportedError, VocabTailorError
from vocabtailor_gguf.gguf.data import tensor_chunks
from vocabtailor_gguf.gguf.header import GGUFHeader, Tensor
from vocabtailor_gguf.gguf.keys import EMBEDDING, HEAD
from vocabtailor_gguf.runtime.backend import collect_log, reason

TYPES = ("q4_0", "q4_K")
# what llama.cpp itself takes where rows do not fill the blocks of a type (llama-quant.cpp)
_FALLBACKS = {"q4_K": "q5_0"}
_CHILD = "vocabtailor_gguf.bench.requant"


def requantized_modes(baseline: str | os.PathLike[str]) -> dict[str, str]:
    """Return the modes of part requant, such as stock-q4_0, and the type of the head in each.

    Types whose blocks are wider than the head's rows are replaced as llama.cpp would; the type that
    the head has already is left out.

    Raises:
        BadFileError: The file is malformed, or has no token embedding.
    """
    head = _head(GGUFHeader(baseline, lenient=True))
    found = {}
    for name in TYPES:
        block, _ = type_geometry(parse_type(name))
        chosen = _FALLBACKS.get(name, name) if head.ne[0] % block else name
        block, _ = type_geometry(parse_type(chosen))
        if head.ne[0] % block == 0 and parse_type(chosen) != head.type:
            found[f"stock-{chosen}"] = chosen
    return found


def requantize(
    baseline: str | os.PathLike[str], target: str | os.PathLike[str], kind: str, n_threads: int
) -> None:
    """Write a copy of a model in which the LM head alone has another type, in a child.

    A tied head is the token embedding, so that changes with it.

    Raises:
        VocabTailorError: llama.cpp cannot do it, or changed more than the head.
    """
    ended = run_child(_CHILD, str(baseline), str(target), kind, str(n_threads))
    if ended.result is None:
        raise VocabTailorError(f"{baseline}: head as {kind}: {ended.sentence}")


def _head(header: GGUFHeader) -> Tensor:
    head = header.tensors.get(HEAD, header.tensors.get(EMBEDDING))
    if head is None:
        raise BadFileError(f"{header.path}: tensor {EMBEDDING}: missing")
    return head


def _quantize(header: GGUFHeader, target: str, kind: int, n_threads: int) -> None:
    """Do what ``llama-quantize --output-tensor-type`` does, with all other tensors as they are."""
    low: Any = llama_cpp.llama_cpp
    head = _head(header)
    others = [t for t in header.tensors.values() if t.name != head.name]
    kept = (low.llama_model_tensor_override * (len(others) + 1))()  # ends with an empty one
    for override, tensor in zip(kept, others, strict=False):
        override.pattern = f"^{re.escape(tensor.name)}$".encode()
        override.type = tensor.type
    params = low.llama_model_quantize_default_params()
    params.tt_overrides = kept
    params.nthread = n_threads
    params.ftype = header.get("general.file_type", params.ftype)
    params.allow_requantize = True
    params.output_tensor_type = kind
    if head.name == EMBEDDING:
        params.token_embedding_type = kind
    with collect_log(forward=False) as log:
        status = low.llama_model_quantize(
            os.fsencode(header.path), os.fsencode(target), ctypes.byref(params)
        )
    if status:
        raise UnsupportedError(f"{header.path}: head as {type_name(kind)}: {reason(log)}")


def _check_others(before: GGUFHeader, after: GGUFHeader, kind: int) -> None:
    """Check that the head has its new type and all other tensors their bytes."""
    head = _head(before).name
    if set(before.tensors) != set(after.tensors) or after.tensors[head].type != kind:
        raise VocabTailorError(f"{after.path}: llama.cpp gave other tensors than were asked for")
    with open(before.path, "rb") as old, open(after.path, "rb") as new:
        for name in before.tensors:
            if name == head:
                continue
            ours, theirs = before.tensors[name], after.tensors[name]
            pairs = zip(
                tensor_chunks(old, before.path, ours),
                tensor_chunks(new, after.path, theirs),
                strict=True,
            )
            if ours.type != theirs.type or any(a[1] != b[1] for a, b in pairs):
                raise VocabTailorError(f"{after.path}: tensor {name}: differs, expected as it was")


def main() -> None:
    """Write and check a file; arguments are the model, the new file, a type and threads."""
    source, target, kind, n_threads = sys.argv[1:]
    header = GGUFHeader(source, lenient=True)
    _quantize(header, target, parse_type(kind), int(n_threads))
    made = GGUFHeader(target, lenient=True)
    _check_others(header, made, parse_type(kind))
    print(json.dumps({"size": Path(target).stat().st_size}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
