"""What the parts of TailoredLlama have in common: an engine and one text of it."""

from __future__ import annotations

from typing import Any, Literal

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.runtime.engine import Engine
from vocabtailor_gguf.runtime.session import Session

Mode = Literal["exact", "tailored", "full"]


class SessionOwner:
    """A model with one text; the rest of its parts is ``llama_cpp.Llama``'s."""

    _session: Session | None = None  # until loading is done, and after closing
    _absent = "the model is closed"  # why there is none
    _engine: Engine
    _mode: Mode
    _seed: int
    context_params: Any
    tokenize: Any

    @property
    def _text(self) -> Session:
        """The session.

        Raises:
            VocabTailorError: The model is closed, or only a vocabulary.
        """
        if self._session is None:
            raise VocabTailorError(self._absent)
        return self._session

    @property
    def store(self) -> VocabStore:
        """The vocabulary store, open as long as the model is."""
        return self._text.engine.store
