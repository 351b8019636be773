"""Scores as ``llama_cpp.Llama`` has them, an array of logits that is computed where it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

Read = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.float32]]

_BLOCK = 64  # rows that are computed at once while all are gone through


class Scores(NDArrayOperatorsMixin):
    """Stands for an (n, n_vocab) or (n_vocab,) float32 array of logits; it cannot be written to.

    Rows and slices of rows are again such objects, so most stopping criteria, which look at token
    ids only, cost nothing of the size of the vocabulary. Anything else is numpy's, on what is
    computed then. A row without a hidden state is NaN.

    Args:
        read: Returns the (n, n_vocab) logits of (n,) positions.
        positions: (n,) positions, or one of them.
        n_vocab: Tokens of the vocabulary.
    """

    dtype = np.dtype(np.single)

    def __init__(self, read: Read, positions: npt.NDArray[np.intp] | np.intp, n_vocab: int) -> None:
        self._read = read
        self._positions = np.asarray(positions)
        self._row: npt.NDArray[np.float32] | None = None
        self.shape = (*self._positions.shape, n_vocab)

    @property
    def ndim(self) -> int:
        """2, or 1 for a row."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of logits."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of the array that this stands for."""
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the array."""
        if self.ndim == 2:
            return np.array(self._read(self._positions), dtype=dtype, copy=copy)
        if self._row is None:
            self._row = self._read(self._positions[None])[0]
        return np.array(self._row, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Compute with the array in the place of this."""
        arrays = [np.asarray(x) if isinstance(x, Scores) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return what the array has."""
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(np.asarray(self), name)

    def __len__(self) -> int:
        """Return the number of rows, of a row n_vocab."""
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        """Go through the rows, some at a time, or through the logits of a row."""
        if self.ndim == 1:
            yield from np.asarray(self)
            return
        for first in range(0, len(self), _BLOCK):
            yield from self._read(self._positions[first : first + _BLOCK])

    def __getitem__(self, index: Any) -> Any:
        """Return rows, or logits."""
        parts = index if isinstance(index, tuple) else (index,)
        # a list, or an array of one axis, chooses rows; those of more, or of none, are numpy's
        plain = all(isinstance(p, int | np.integer | slice) or np.ndim(p) == 1 for p in parts)
        if self.ndim == 1 or len(parts) > 2 or not plain or isinstance(parts[0], bool):
            return np.asarray(self)[index]
        rows = Scores(self._read, self._positions[parts[0]], self.shape[1])
        if len(parts) == 1 or (isinstance(parts[1], slice) and parts[1] == slice(None)):
            return rows
        if rows.ndim == 1:
            return np.asarray(rows)[parts[1]]
        if isinstance(parts[0], slice) or isinstance(parts[1], slice):
            return np.asarray(rows)[:, parts[1]]
        return np.asarray(rows)[np.arange(len(rows)), parts[1]]  # pairs, as numpy has it

    def copy(self) -> npt.NDArray[np.float32]:
        """Return the array, which no longer follows the text."""
        out: npt.NDArray[np.float32] = np.array(self)
        return out
