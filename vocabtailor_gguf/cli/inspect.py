"""Show what a core, a store or a model holds."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from vocabtailor_gguf.binding.types import type_name
from vocabtailor_gguf.cli import _common, _screen
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.gguf.header import GGUFHeader, Key

_LONGEST = 60  # characters of a value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("file", metavar="FILE", help="any GGUF file")
    parser.add_argument("--keys", action="store_true", help="show every key, not only ours")
    parser.add_argument("--tensors", action="store_true", help="list the tensors")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print a summary."""
    header, odd = _read(args.file)
    found = _summary(header) | ({"odd": odd} if odd else {})
    if args.json:
        _common.print_json(found)
        return 0
    print(f"{header.path}: {found['kind']}, {header.file_size:,} bytes")
    if odd:
        print(f"  odd, but llama.cpp may load it: {odd}")
    for name, key in header.keys.items():
        if args.keys or name.startswith("vocabtailor.") or name in _SHOWN:
            print(_screen.shown(f"  {name:<40} {_short(key)}", sys.stdout))
    print(f"  {len(header.tensors)} tensors, {found['tensor_bytes']:,} bytes")
    for t in found["tensors"]:
        if args.tensors or t["name"] in ("token_embd.weight", "output.weight", "output.bias"):
            shape = " x ".join(str(n) for n in t["ne"])
            print(f"  {t['name']:<40} {t['type']:<7} {shape:<16} {t['n_bytes']:>14,}")
    return 0


def _read(path: str) -> tuple[GGUFHeader, str]:
    """Return a header, and what is odd about it where others wrote it."""
    try:
        return GGUFHeader(path), ""
    except BadFileError as e:
        with contextlib.suppress(BadFileError):
            header = GGUFHeader(path, lenient=True)
            if "vocabtailor.kind" not in header.keys:
                return header, str(e).removeprefix(f"{path}: ")
        raise


_SHOWN = ("general.architecture", "general.name", "tokenizer.ggml.model")


def _summary(header: GGUFHeader) -> dict[str, Any]:
    tensors = [
        {
            "name": t.name,
            "type": type_name(t.type),
            "ne": list(t.ne),
            "n_bytes": t.n_bytes,
            "offset": t.offset,
        }
        for t in header.tensors.values()
    ]
    return {
        "path": header.path,
        "kind": header.get("vocabtailor.kind", "model"),
        "file_size": header.file_size,
        "alignment": header.alignment,
        "tensor_bytes": sum(t.n_bytes for t in header.tensors.values()),
        "keys": {k.name: _value(k) for k in header.keys.values()},
        "tensors": tensors,
    }


def _value(key: Key) -> Any:
    return f"array of {key.n}" if key.element_type >= 0 and key.n > 16 else key.decode()


def _short(key: Key) -> str:
    text = str(_value(key)).replace("\n", "\\n")
    return text if len(text) <= _LONGEST or len(text) == 64 else text[:_LONGEST] + "..."
