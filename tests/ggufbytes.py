"""GGUF files put together byte by byte, right or wrong as a test wants them.

Nothing here checks anything. Layout: see native/src/store/gguf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from vocabtailor_gguf.gguf.header import GGUFHeader

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_FORMATS = dict(zip((U8, I8, U16, I16, U32, I32, F32, BOOL), "BbHhIif?", strict=True))
_FORMATS |= {U64: "Q", I64: "q", F64: "d"}

# the gguf package has 40 bytes for Q8_1, ggml 36
_SIZES = {**GGML_QUANT_SIZES, GGMLQuantizationType.Q8_1: (32, 36)}


class TensorInfo(NamedTuple):
    """What a header says of a tensor; without `offset` it follows the one before it."""

    name: str | bytes
    ne: Sequence[int]
    type: int = GGMLQuantizationType.F32
    offset: int | None = None
    n_dims: int | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of the data, for types and shapes that make sense."""
        block, size = _SIZES[GGMLQuantizationType(self.type)]
        n = 1
        for ne in self.ne:
            n *= ne
        return n // block * size


def string(text: str | bytes, n: int | None = None) -> bytes:
    """Returns a length, which may be a lie, and the text."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if n is None else n) + raw


def value(kind: int, x: int | float | str | bytes) -> bytes:
    """Returns a scalar or a string without its type."""
    if isinstance(x, str | bytes):
        return string(x)
    return struct.pack("<" + _FORMATS[kind], x)


def key(name: str | bytes, kind: int, x: int | float | str | bytes | None = None) -> bytes:
    """Returns a record; without a value it ends after the type."""
    return string(name) + struct.pack("<I", kind) + (b"" if x is None else value(kind, x))


def array(
    name: str | bytes, kind: int, items: Iterable[int | float | str | bytes], n: int | None = None
) -> bytes:
    """Returns the record of an array, whose count may be a lie."""
    encoded = [value(kind, x) for x in items]
    count = len(encoded) if n is None else n
    return key(name, ARRAY) + struct.pack("<IQ", kind, count) + b"".join(encoded)


def header(
    keys: Sequence[bytes] = (),
    tensors: Sequence[TensorInfo] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    """Returns a header without padding."""
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    out = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys)
    at = 0
    for t in tensors:
        dims = struct.pack(f"<{len(t.ne)}Q", *t.ne)
        n_dims = len(t.ne) if t.n_dims is None else t.n_dims
        offset = at if t.offset is None else t.offset
        out += string(t.name) + struct.pack("<I", n_dims) + dims
        out += struct.pack("<IQ", t.type, offset)
        if t.offset is None:
            at = padded(at + t.n_bytes, alignment)
    return out


def padded(n: int, alignment: int = 32) -> int:
    """Returns `n` rounded up."""
    return -(-n // alignment) * alignment


def pad(data: bytes, alignment: int = 32) -> bytes:
    """Returns the bytes, filled up with zeros."""
    return data.ljust(padded(len(data), alignment), b"\0")


def write_file(path: Path, keys: Iterable[bytes], tensors: Mapping[TensorInfo, bytes]) -> Path:
    """Writes a file of these records and tensors with the default alignment."""
    head = header(list(keys), list(tensors))
    path.write_bytes(pad(head) + b"".join(pad(data) for data in tensors.values()))
    return path


def rebuilt(source: Path, path: Path, *, drop: Sequence[str] = (), **keys: bytes) -> Path:
    """Writes a right file again without some keys or tensors and with other keys."""
    found = GGUFHeader(source)
    records = {name: k.record for name, k in found.keys.items() if name not in drop} | keys
    data = {}
    for t in GGUFReader(source).tensors:
        if t.name not in drop:
            info = found.tensors[t.name]
            data[TensorInfo(t.name, info.ne, info.type)] = t.data.tobytes()
    return write_file(path, records.values(), data)
