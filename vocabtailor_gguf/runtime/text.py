"""What llama_cpp.Llama keeps of its text, as it lies in the session: a part of TailoredLlama."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.runtime.owner import SessionOwner


class Text(SessionOwner):
    """The tokens, and the chain that goes on."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the text."""
        return 0 if self._session is None else self._session.n_tokens

    @n_tokens.setter
    def n_tokens(self, n: int) -> None:
        if self._session is not None and not self._session.truncate(n):
            raise VocabTailorError(f"n_tokens: the text cannot be cut to {n} tokens")

    @property
    def input_ids(self) -> npt.NDArray[np.int32]:
        """The (n_ctx,) int32 ids of the text, of which the first `n_tokens` count."""
        return np.empty(0, dtype=np.int32) if self._session is None else self._session.ids

    @input_ids.setter
    def input_ids(self, ids: npt.NDArray[np.int32]) -> None:
        if self._session is not None:
            raise VocabTailorError("input_ids: use eval and reset")

    @property
    def _sampler(self) -> Any:
        return None if self._session is None else self._session.chain

    @_sampler.setter
    def _sampler(self, chain: Any) -> None:
        if self._session is not None:
            self._session.use_chain(chain)
