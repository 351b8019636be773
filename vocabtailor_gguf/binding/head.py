"""The native LM head over the active set."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import VocabStore, checked_ids


class ActiveHead:
    """The LM head over a set of token ids. Static rows first, then appended ones."""

    def __init__(self, store: VocabStore, *, share: ActiveHead | None = None) -> None:
        """Make a head of `store` without rows.

        Args:
            store: The store.
            share: A head of `store` whose static rows this one has too, in the same memory.
        """
        out = native.ffi.new("vt_head **")
        if share is None:
            native.call("vt_head_new", store.handle, out)
        else:
            native.call("vt_head_share", share.handle, out)
        self.handle: Any = native.ffi.gc(out[0], native.lib().vt_head_free)
        self._store = store
        # lives as long as the head, even if the store is closed
        self._needs: Any = store.handle if share is None else share._needs

    def set_static(self, ids: npt.NDArray[np.int32]) -> None:
        """Replace the whole set by (n,) ids, in this order."""
        tokens = checked_ids(ids)
        pointer = native.ffi.from_buffer("int32_t[]", tokens)
        native.call("vt_head_set_static", self.handle, pointer, tokens.size)

    def append(self, ids: npt.NDArray[np.int32]) -> int:
        """Add (n,) ids that are not in the set yet; return how many were added."""
        added = native.ffi.new("size_t *")
        tokens = checked_ids(ids)
        pointer = native.ffi.from_buffer("int32_t[]", tokens)
        native.call("vt_head_append", self.handle, pointer, tokens.size, added)
        return int(added[0])

    def reset(self) -> None:
        """Go back to the static rows; nothing is read."""
        native.call("vt_head_reset", self.handle)

    @property
    def n_static(self) -> int:
        """Static rows."""
        return int(self._info().n_static)

    @property
    def n_rows(self) -> int:
        """Rows of the set."""
        return int(self._info().n_rows)

    @property
    def n_bytes(self) -> int:
        """Memory held for rows, ids and the product, in bytes."""
        return int(self._info().n_bytes)

    def _info(self) -> Any:
        out = native.ffi.new("vt_head_info *")
        native.call("vt_head_get_info", self.handle, out)
        return out

    def ids(self) -> npt.NDArray[np.int32]:
        """Return the (n_rows,) ids in row order."""
        ids: npt.NDArray[np.int32] = native.read_array("vt_head_get_ids", self.handle, np.int32)
        return ids

    def compute(
        self, hidden: npt.NDArray[np.float32], *, n_threads: int
    ) -> npt.NDArray[np.float32]:
        """Return the (B, n_rows) float32 logits of (B, n_embd) float32 hidden states."""
        hidden = np.ascontiguousarray(hidden, dtype=np.float32)
        if hidden.ndim != 2 or hidden.shape[1] != self._store.n_embd:
            raise ValueError(f"hidden states: {hidden.shape}, expected (B, {self._store.n_embd})")
        logits = np.empty((len(hidden), self.n_rows), dtype=np.float32)
        native.call(
            "vt_head_compute",
            self.handle,
            native.ffi.from_buffer("float[]", hidden),
            len(hidden),
            n_threads,
            native.ffi.from_buffer("float[]", logits),
            logits.size,
        )
        return logits

    def close(self) -> None:
        """Free the rows, after the call that another thread may be in."""
        self.handle = self._needs = native.ffi.NULL
