"""Texts that are saved and loaded: a part of TailoredLlama."""

from __future__ import annotations

from typing import Any

import llama_cpp
import numpy as np

from vocabtailor_gguf.binding.store import token_array
from vocabtailor_gguf.runtime.owner import SessionOwner
from vocabtailor_gguf.runtime.states import pack, unpack
from vocabtailor_gguf.sets.token_set import TokenSet


class Persistence(SessionOwner):
    """States, which ``llama_cpp.Llama``'s caches keep, too, and pickles."""

    token_set: TokenSet | None
    _logits_all: bool
    _asked: dict[str, Any]  # this package's own arguments

    def save_state(self) -> llama_cpp.LlamaState:
        """Return the text and the state of its context.

        No logits travel with them, but with ``logits_all=True`` the hidden states that make them.

        Raises:
            VocabTailorError: llama.cpp cannot give the state.
        """
        with self._text.lock:
            state = self._text.save()
            return llama_cpp.LlamaState(
                input_ids=self._text.text.copy(),
                scores=pack(self._text) if self._logits_all else np.empty((0, 0), np.single),
                n_tokens=self._text.n_tokens,
                llama_state=state,
                llama_state_size=len(state),
                seed=self._seed,
            )

    def load_state(self, state: llama_cpp.LlamaState) -> None:
        """Go back to what `save_state` returned, on this model or another one of its kind.

        Raises:
            VocabTailorError: It is the state of another model.
        """
        with self._text.lock:
            self._text.load(token_array(state.input_ids[: state.n_tokens]), state.llama_state)
            unpack(self._text, state.scores)
        self._seed = state.seed

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments that make this model again, without its text."""
        upstream: Any = super()
        return {**upstream.__getstate__(), **self._asked, "token_set": self.token_set}
