"""Writing GGUF files: headers from raw records, data in a stream, names only when all is there.

Layout: see native/src/store/gguf.h. PyPI's ``gguf.GGUFWriter`` encodes each value anew from Python
objects; keeping the source's records as they are is what lets a merge give its bytes back.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gguf.constants import GGUF_MAGIC, GGUF_VERSION, GGUFValueType


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: ne in ggml's order, size in bytes."""

    name: str
    type: int
    ne: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True)
class Layout:
    """An encoded header and where each tensor's data goes, in bytes from the file's start."""

    header: bytes
    offsets: dict[str, int]
    size: int


def _string(text: str | bytes) -> bytes:
    raw = text.encode("utf-8") if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def encode_key(name: str, value: bool | int | float | str | Sequence[str]) -> bytes:
    """Return a key's record; int is encoded as u32 and float as f32."""
    head = _string(name)
    if isinstance(value, bool):
        return head + struct.pack("<I?", GGUFValueType.BOOL, value)
    if isinstance(value, int):
        return head + struct.pack("<II", GGUFValueType.UINT32, value)
    if isinstance(value, float):
        return head + struct.pack("<If", GGUFValueType.FLOAT32, value)
    if isinstance(value, str):
        return head + struct.pack("<I", GGUFValueType.STRING) + _string(value)
    items = b"".join(_string(s) for s in value)
    return head + struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType.STRING, len(value)) + items


def padded(n: int, alignment: int) -> int:
    """Return `n` rounded up to a multiple of `alignment`."""
    return (n + alignment - 1) // alignment * alignment


def layout(records: Sequence[bytes], tensors: Sequence[TensorSpec], alignment: int) -> Layout:
    """Encode a header of these key records and tensors."""
    infos = []
    at = 0
    starts = {}
    for t in tensors:
        dims = struct.pack(f"<I{len(t.ne)}Q", len(t.ne), *t.ne)
        infos.append(_string(t.name) + dims + struct.pack("<IQ", t.type, at))
        starts[t.name] = at
        at += padded(t.n_bytes, alignment)
    prefix = struct.pack("<IIQQ", GGUF_MAGIC, GGUF_VERSION, len(tensors), len(records))
    header = prefix + b"".join(records) + b"".join(infos)
    header = header.ljust(padded(len(header), alignment), b"\0")
    offsets = {name: len(header) + start for name, start in starts.items()}
    return Layout(header, offsets, len(header) + at)
