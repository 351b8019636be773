"""GGUF headers as Python objects. The bytes are parsed by the native reader only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.gguf.values import ValueType

_DTYPES: dict[int, str] = {
    ValueType.UINT8: "<u1",
    ValueType.INT8: "<i1",
    ValueType.UINT16: "<u2",
    ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
    ValueType.BOOL: "?",
    ValueType.UINT64: "<u8",
    ValueType.INT64: "<i8",
    ValueType.FLOAT64: "<f8",
}


@dataclass(frozen=True)
class Key:
    """One key of a header, with its bytes as they stand in the file."""

    name: str
    type: int
    element_type: int  # of an array, else -1
    n: int
    value: bytes
    record: bytes

    @property
    def raw_name(self) -> bytes:
        """The name as it stands in the file; `name` ends at a NUL."""
        return first_string(self.record)

    def decode(self) -> Any:
        """Return the value: a scalar, a string, a numpy array or a list of strings."""
        is_array = self.type == ValueType.ARRAY
        element = self.element_type if is_array else self.type
        if element == ValueType.STRING:
            strings = [b.decode("utf-8", errors="replace") for b in self.strings()]
            return strings if is_array else strings[0]
        values = np.frombuffer(self.value, dtype=_DTYPES[element])
        return values if is_array else values[0].item()

    def strings(self) -> Iterator[bytes]:
        """Yield the strings of the value as bytes."""
        at = 0
        for _ in range(self.n):
            size = int.from_bytes(self.value[at : at + 8], "little")
            yield self.value[at + 8 : at + 8 + size]
            at += 8 + size


@dataclass(frozen=True)
class Tensor:
    """One tensor of a header."""

    name: str
    type: int
    ne: tuple[int, ...]  # ggml's order: ne[0] is the row length
    offset: int  # from the start of the file, bytes
    n_bytes: int
    record: bytes = b""  # what the header says of it

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        n_rows = 1
        for n in self.ne[1:]:
            n_rows *= n
        return self.n_bytes // n_rows


class GGUFHeader:
    """A validated GGUF header: ``keys`` and ``tensors`` by name, in file order.

    Args:
        path: The file.
        lenient: Take what llama.cpp takes, for models that others wrote; see `source.read_source`.
            Where names are equal up to a NUL the first one counts, as for llama.cpp.

    Raises:
        BadFileError: The file cannot be read or is malformed.
    """

    def __init__(self, path: str | os.PathLike[str], *, lenient: bool = False) -> None:
        self.path = Path(path)
        out = native.ffi.new("vt_gguf **")
        opened = "vt_gguf_open_source" if lenient else "vt_gguf_open"
        native.call(opened, native.encode_path(path), out)
        handle = native.ffi.gc(out[0], native.lib().vt_gguf_free)
        lib = native.lib()
        self.version = int(lib.vt_gguf_version(handle))
        self.alignment = int(lib.vt_gguf_alignment(handle))
        self.data_offset = int(lib.vt_gguf_data_offset(handle))
        self.file_size = int(lib.vt_gguf_file_size(handle))
        self.every_key: list[Key] = []
        self.keys: dict[str, Key] = {}
        self.tensors: dict[str, Tensor] = {}
        key = native.ffi.new("vt_gguf_key *")
        for i in range(lib.vt_gguf_n_keys(handle)):
            lib.vt_gguf_get_key(handle, i, key)
            found = Key(
                name=_string(key.name),
                type=key.type,
                element_type=key.element_type,
                n=key.n,
                value=bytes(native.ffi.buffer(key.value, key.n_bytes)),
                record=bytes(native.ffi.buffer(key.record, key.n_record)),
            )
            self.every_key.append(found)
            self.keys.setdefault(found.name, found)
        tensor = native.ffi.new("vt_gguf_tensor *")
        for i in range(lib.vt_gguf_n_tensors(handle)):
            lib.vt_gguf_get_tensor(handle, i, tensor)
            name = _string(tensor.name)
            if name in self.tensors:
                raise BadFileError(f"{path}: tensor {name}: appears twice")
            self.tensors[name] = Tensor(
                name=name,
                type=tensor.type,
                ne=tuple(tensor.ne[j] for j in range(tensor.n_dims)),
                offset=tensor.offset,
                n_bytes=tensor.n_bytes,
                record=bytes(native.ffi.buffer(tensor.record, tensor.n_record)),
            )

    def get(self, name: str, default: Any = None) -> Any:
        """Return the decoded value of a key, or `default` where the key is missing."""
        key = self.keys.get(name)
        return default if key is None else key.decode()

    def require(self, name: str, kind: type) -> Any:
        """Return the decoded value of a key that must be there and of type `kind`.

        Raises:
            BadFileError: It is missing or of another type.
        """
        value = self.get(name)
        if type(value) is not kind:
            found = "missing" if value is None else f"of type {type(value).__name__}"
            raise BadFileError(f"{self.path}: key {name}: {found}, expected {kind.__name__}")
        return value


def first_string(record: bytes) -> bytes:
    """Return the string that a record begins with: the name of a key or a tensor."""
    return record[8 : 8 + int.from_bytes(record[:8], "little")]


def _string(pointer: Any) -> str:
    return bytes(native.ffi.string(pointer)).decode("utf-8", errors="surrogateescape")
