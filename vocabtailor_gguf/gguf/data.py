"""Tensor data, read from a GGUF file in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.gguf.header import Tensor

_CHUNK = 4 << 20  # bytes read at once


def read_exactly(file: BinaryIO, path: str | os.PathLike[str], n: int) -> bytes:
    """Return the next `n` bytes of a file.

    Raises:
        BadFileError: There are fewer.
    """
    data = file.read(n)
    if len(data) != n:
        raise BadFileError(f"{path}: became shorter while it was read")
    return data


def tensor_chunks(
    file: BinaryIO, path: str | os.PathLike[str], tensor: Tensor
) -> Iterator[tuple[int, memoryview]]:
    """Yield (start, bytes) for the data of a tensor, cut at row boundaries.

    Args:
        file: Open for reading; it ends up behind the tensor.
        path: For errors.
        tensor: Of that file.

    Raises:
        BadFileError: The file became shorter.
    """
    file.seek(tensor.offset)
    step = max(1, _CHUNK // tensor.row_bytes) * tensor.row_bytes
    for start in range(0, tensor.n_bytes, step):
        yield start, memoryview(read_exactly(file, path, min(step, tensor.n_bytes - start)))
