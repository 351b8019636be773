"""A model to be split, which others wrote: what llama.cpp sees of it, and what is odd about it.

llama.cpp loads files that a core or a store may not be like. Such a source is taken apart into a
header as llama.cpp understands it, every record well formed, and into keys of ours that keep the
odd bytes, from which a merge gives the source back.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from vocabtailor_gguf.errors import BadFileError, UnsupportedError
from vocabtailor_gguf.gguf.data import read_exactly
from vocabtailor_gguf.gguf.header import GGUFHeader, Key, Tensor
from vocabtailor_gguf.gguf.keys import (
    BIAS,
    EMBEDDING,
    HEAD,
    ODD_KEYS,
    ODD_TENSORS,
    PER_LAYER,
    SOURCE_ALIGNMENT,
    SOURCE_PADDING,
    SOURCE_SIZE,
    SOURCE_VERSION,
)
from vocabtailor_gguf.gguf.values import ValueType
from vocabtailor_gguf.gguf.write import encode_key, padded, shape_record

MAX_FILLER = 16 << 20  # bytes, beside tensors, that are kept in a header
_CHUNK = 1 << 20
_VERSION = 3
_ALIGNMENT = "general.alignment"
_TOKENS = "tokenizer.ggml.tokens"
_N_DIMS = {EMBEDDING: 2, HEAD: 2, PER_LAYER: 2, BIAS: 1}

Own = Mapping[str, int | Sequence[bytes]]


@dataclass(frozen=True)
class Source:
    """A source, taken apart.

    Attributes:
        header: As llama.cpp understands it; its records may stand in a core or a store.
        key_order: Names of all keys as they stand in the file.
        own: Keys of ours that hold what is odd, none for most files.
    """

    header: GGUFHeader
    key_order: tuple[bytes, ...]
    own: Own


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read the header of a model that llama.cpp may load, and what lies beside its tensors.

    Raises:
        BadFileError: The file cannot be read or is malformed.
        UnsupportedError: It has more odd bytes than are kept.
    """
    header = GGUFHeader(path, lenient=True)
    if header.alignment > MAX_FILLER:
        raise UnsupportedError(
            f"{path}: key {_ALIGNMENT}: {header.alignment}, expected at most {MAX_FILLER}"
        )
    own: dict[str, int | Sequence[bytes]] = {}
    if header.version != _VERSION:
        own[SOURCE_VERSION] = header.version
    own |= _filler(header)
    odd_tensors = []
    for name, tensor in header.tensors.items():
        if not (name and name.isascii() and name.isprintable()):  # llama.cpp knows none such
            raise BadFileError(f"{path}: tensor name {name!r}: expected printable ASCII")
        plain = _plain_tensor(tensor)
        if plain.record != tensor.record:
            odd_tensors.append(tensor.record[:-12])
            header.tensors[name] = plain
    if odd_tensors:
        own[ODD_TENSORS] = odd_tensors
    order = tuple(k.raw_name for k in header.every_key)
    odd_keys = _take_odd_keys(header)
    if odd_keys:
        own[ODD_KEYS] = odd_keys
    if not 8 <= header.alignment <= 65536:
        own[SOURCE_ALIGNMENT] = header.alignment
        header.alignment = 32
    return Source(header, order, own)


def _plain_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with a name that ends at a NUL and no more dimensions than are needed."""
    ne = tensor.ne or (1,)
    wanted = _N_DIMS.get(tensor.name, len(ne))
    while len(ne) > wanted and ne[-1] == 1:
        ne = ne[:-1]
    return dataclasses.replace(
        tensor, ne=ne, record=shape_record(tensor.name, ne) + tensor.record[-12:]
    )


def _take_odd_keys(header: GGUFHeader) -> list[bytes]:
    """Leave in a header only what llama.cpp sees; return the records that differ."""
    tokens = header.keys.get(_TOKENS)
    n_vocab = tokens.n if tokens is not None and tokens.element_type >= 0 else 0
    foreign = "vocabtailor.kind" not in header.keys  # then keys with our prefix are not ours
    plain: dict[str, Key] = {}
    odd = []
    for key in header.every_key:
        seen = None
        if key.name not in plain and not (foreign and key.name.startswith("vocabtailor.")):
            seen = _plain_key(key, n_vocab)
        if seen is not None:
            plain[seen.name] = seen
        if seen is None or seen.record != key.record:
            odd.append(key.record)
    header.keys = plain
    return odd


def _plain_key(key: Key, n_vocab: int) -> Key | None:
    """Return a key as llama.cpp reads it, None if it never does (src/llama-vocab.cpp)."""
    name = key.name
    if not (0 < len(name) <= 65535 and name.isascii() and name.isprintable()):
        return None
    value = key.value
    n = key.n
    element = key.element_type if key.type == ValueType.ARRAY else key.type
    if element == ValueType.BOOL:
        value = (np.frombuffer(value, dtype=np.uint8) != 0).tobytes()
    elif name == _ALIGNMENT and not 8 <= key.decode() <= 65536:
        value = (32).to_bytes(4, "little")
    elif name in ("general.architecture", "tokenizer.ggml.model"):
        if key.type == ValueType.STRING:  # C strings
            value = encode_key(b"", next(key.strings()).split(b"\0")[0])[12:]
    elif name.startswith("tokenizer.ggml.") and name.endswith("_token_id"):
        if key.type != ValueType.UINT32:  # then it is not one of those that are read
            return None
    elif name in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type") and key.n >= n_vocab:
        n = n_vocab  # more are never looked at
        value = value[: n * 4] if element in _FOUR_BYTES else value
        if name.endswith("scores") and element == ValueType.INT32:
            value = np.frombuffer(value, dtype="<i4").astype("<f4").tobytes()
            element = ValueType.FLOAT32
        n = n if element in _FOUR_BYTES else key.n
    types = [key.type]
    if key.type == ValueType.ARRAY:
        types.append(element)
    record = len(name).to_bytes(8, "little") + name.encode("ascii")
    record += b"".join(int(t).to_bytes(4, "little") for t in types)
    if key.type == ValueType.ARRAY:
        record += n.to_bytes(8, "little")
    return Key(name, key.type, types[1] if len(types) > 1 else -1, n, value, record + value)


_FOUR_BYTES = (ValueType.INT32, ValueType.FLOAT32, ValueType.UINT32)


def _filler(header: GGUFHeader) -> Own:
    """Return the bytes between and after tensors, where they are not the zeros that they should be.

    Zeros at the end of each are left out; the file's size tells how many follow the last tensor.
    """
    kept: list[bytes] = []
    room = MAX_FILLER
    with open(header.path, "rb") as file:
        for start, end in _gaps(header):
            kept.append(_without_zeros(file, header, start, end, room))
            room -= len(kept[-1])
    own: dict[str, int | Sequence[bytes]] = {}
    if any(kept):
        own[SOURCE_PADDING] = kept
    *_, last = _gaps(header)
    if padded(last[0] - header.data_offset, header.alignment) + header.data_offset != last[1]:
        own[SOURCE_SIZE] = header.file_size
    return own


def _gaps(header: GGUFHeader) -> Iterator[tuple[int, int]]:
    at = 24 + sum(len(k.record) for k in header.every_key)
    at += sum(len(t.record) for t in header.tensors.values())
    for tensor in header.tensors.values():
        yield at, tensor.offset
        at = tensor.offset + tensor.n_bytes
    yield at, header.file_size


def _without_zeros(file: BinaryIO, header: GGUFHeader, start: int, end: int, room: int) -> bytes:
    """Return the bytes from `start` up to the last that is not 0."""
    file.seek(start)
    found = bytearray()
    zeros = 0
    for at in range(start, end, _CHUNK):
        chunk = read_exactly(file, header.path, min(_CHUNK, end - at))
        stripped = chunk.rstrip(b"\0")
        if stripped and len(found) + zeros + len(stripped) > room:
            raise UnsupportedError(
                f"{header.path}: more than {MAX_FILLER >> 20} MiB that belong to no tensor, "
                f"after byte {start}"
            )
        if stripped:
            found += bytes(zeros) + stripped
            zeros = 0
        zeros += len(chunk) - len(stripped)
    return bytes(found)


def strings(header: GGUFHeader, name: str) -> list[bytes]:
    """Return the strings of an array, none where the key is missing.

    Raises:
        BadFileError: It is no array of strings.
    """
    key = header.keys.get(name)
    if key is None:
        return []
    if key.element_type != ValueType.STRING:
        raise BadFileError(f"{header.path}: key {name}: expected an array of strings")
    return list(key.strings())
