"""Scores of the last position in the shape llama-cpp-python hands to stopping criteria."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


class LazyScores:
    """Stands for a (n_vocab,) float32 row of logits that is made only when somebody looks at it.

    Tokens outside the active set have the logit -inf. Most stopping criteria look at token ids
    only, and then nothing of the size of the vocabulary is allocated.
    """

    dtype = np.dtype(np.single)

    def __init__(
        self,
        n_vocab: int,
        read: Callable[[], tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]],
    ) -> None:
        self.shape = (n_vocab,)
        self._read = read
        self._row: npt.NDArray[np.float32] | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the row."""
        if self._row is None:
            ids, logits = self._read()
            self._row = np.full(self.shape, -np.inf, dtype=np.single)
            self._row[ids] = logits
        return np.array(self._row, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        """Return n_vocab."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Return logits by token id."""
        return np.asarray(self)[index]


class LastPosition:
    """Stands for the (positions, n_vocab) array of scores, of which the last row exists.

    llama_cpp.Llama asks for it as row -1, and in `generate` as row 0.
    """

    def __init__(self, row: LazyScores) -> None:
        self._row = row

    def __getitem__(self, index: Any) -> LazyScores:
        """Return the last row.

        Raises:
            IndexError: Another row is asked for.
        """
        if index not in ((-1, slice(None)), (0, slice(None))):
            raise IndexError("only scores of the last position exist")
        return self._row
