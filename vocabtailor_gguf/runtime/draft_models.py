"""Drafts of a `draft_model`, as llama-cpp-python has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class DraftModel:
    """Asks a ``llama_cpp.llama_speculative.LlamaDraftModel`` when what it said is used up.

    Args:
        draft_model: Called with the (n,) int32 ids of the text; returns the (m,) ids that may
            follow it.
    """

    def __init__(self, draft_model: Any) -> None:
        self._draft_model = draft_model
        self._left: list[int] = []

    def after(
        self, text: npt.NDArray[np.int32], new: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.int32] | None:
        """Return the (m,) ids that may follow a text and its (n,) new tokens.

        None where what was returned before holds on. What the draft model raises goes through.
        """
        n = new.size
        follows = self._left[:n] == new.tolist()
        self._left = self._left[n:] if follows else []
        if self._left:
            return None
        found = self._draft_model(np.concatenate([text, new]).astype(np.intc))
        ids = np.asarray(found).astype(np.int32).ravel()
        self._left = ids.tolist()
        return ids
