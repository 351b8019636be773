"""Writing GGUF files: headers from raw records, data in a stream, names only when all is there.

Layout: see native/src/store/gguf.h. PyPI's ``gguf.GGUFWriter`` encodes each value anew from Python
objects; keeping the source's records as they are is what lets a merge give its bytes back.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vocabtailor_gguf.gguf.values import MAGIC, VERSION, ValueType

MAX_HEADER = 64 << 20  # bytes; the reader takes no more


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: ne in ggml's order, size in bytes; name and ne may be encoded."""

    name: str
    type: int
    ne: tuple[int, ...]
    n_bytes: int
    shape_record: bytes = b""


@dataclass(frozen=True)
class Layout:
    """An encoded header and where each tensor's data goes, in bytes from the file's start."""

    header: bytes  # padded with zeros
    n_header: int  # without the padding
    offsets: dict[str, int]
    size: int


def _string(text: str | bytes) -> bytes:
    raw = text.encode("utf-8") if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def encode_key(
    name: str | bytes, value: bool | int | float | str | bytes | Sequence[str | bytes]
) -> bytes:
    """Return a key's record; int is encoded as u32 where it fits, else as u64, float as f32."""
    head = _string(name)
    if isinstance(value, bool):
        return head + struct.pack("<I?", ValueType.BOOL, value)
    if isinstance(value, int):
        wide = value >= 2**32
        kind = ValueType.UINT64 if wide else ValueType.UINT32
        return head + struct.pack("<IQ" if wide else "<II", kind, value)
    if isinstance(value, float):
        return head + struct.pack("<If", ValueType.FLOAT32, value)
    if isinstance(value, str | bytes):
        return head + struct.pack("<I", ValueType.STRING) + _string(value)
    items = b"".join(_string(s) for s in value)
    return head + struct.pack("<IIQ", ValueType.ARRAY, ValueType.STRING, len(value)) + items


def padded(n: int, alignment: int) -> int:
    """Return `n` rounded up to a multiple of `alignment`."""
    return (n + alignment - 1) // alignment * alignment


def shape_record(name: str, ne: tuple[int, ...]) -> bytes:
    """Return the record of a tensor up to its type."""
    return _string(name) + struct.pack(f"<I{len(ne)}Q", len(ne), *ne)


def layout(
    records: Sequence[bytes],
    tensors: Sequence[TensorSpec],
    alignment: int,
    *,
    version: int = VERSION,
) -> Layout:
    """Encode a header of these key records and tensors."""
    infos = []
    at = 0
    starts = {}
    for t in tensors:
        shape = t.shape_record or shape_record(t.name, t.ne)
        infos.append(shape + struct.pack("<IQ", t.type, at))
        starts[t.name] = at
        at += padded(t.n_bytes, alignment)
    prefix = struct.pack("<IIQQ", MAGIC, version, len(tensors), len(records))
    header = prefix + b"".join(records) + b"".join(infos)
    n_header = len(header)
    header = header.ljust(padded(n_header, alignment), b"\0")
    offsets = {name: len(header) + start for name, start in starts.items()}
    return Layout(header, n_header, offsets, len(header) + at)
