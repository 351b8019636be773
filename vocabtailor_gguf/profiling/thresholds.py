"""Stage 3: drop the rarest tokens while little is lost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def keep_within(
    frequency: npt.NDArray[np.int64], n_documents: int, tolerance: float
) -> npt.NDArray[np.int32]:
    """Return the tokens that stay when the rarest are dropped within a tolerance.

    The dropped mass, the sum of the dropped tokens' document frequencies, is at most
    ``tolerance * n_documents``: so at most that share of documents loses a token (VocabTailor,
    section 4). Of tokens that are equally rare the larger ids go first. O(n log n).

    Args:
        frequency: (n_vocab,) document frequencies.
        n_documents: Documents.
        tolerance: Share of the documents, 0 to drop nothing that occurs.

    Returns:
        (n,) int32 ascending ids.
    """
    ids, mass = _rarest_first(frequency)
    n_dropped = int(np.searchsorted(mass, tolerance * n_documents, side="right"))
    return np.sort(ids[n_dropped:]).astype(np.int32)


def keep_rows(
    frequency: npt.NDArray[np.int64], n_documents: int, n_rows: int
) -> tuple[npt.NDArray[np.int32], float]:
    """Return the `n_rows` most frequent tokens, and the tolerance that gives them."""
    ids, mass = _rarest_first(frequency)
    n_dropped = max(0, ids.size - n_rows)
    tolerance = float(mass[n_dropped - 1] / n_documents) if n_dropped and n_documents else 0.0
    return np.sort(ids[n_dropped:]).astype(np.int32), tolerance


def most_frequent_first(frequency: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return the (n,) int32 ids that occur, the most frequent first, ties by id."""
    return _rarest_first(frequency)[0][::-1].astype(np.int32)


def _rarest_first(
    frequency: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the ids that occur, rarest first, and the running sum of their frequencies."""
    ids = np.flatnonzero(frequency)[::-1]
    ids = ids[np.argsort(frequency[ids], kind="stable")]
    return ids, np.cumsum(frequency[ids])
