"""Batches of several texts, as llama_cpp.Llama makes them for embeddings: a part of TailoredLlama.

``embed`` and ``create_embedding`` are its own: they fill a batch with token ids, and the context
that stands for the core's decodes it through the session.
"""

from __future__ import annotations

from typing import Any

import llama_cpp

from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.owner import SessionOwner


class Embeddings(SessionOwner):
    """The batch of the model, and what embeddings ask of a context."""

    _own_batch: Any = None
    n_batch: int

    @property
    def _batch(self) -> Any:
        """The batch, which is made when somebody asks for it: decoding does without."""
        if self._own_batch is None:
            self._text.check_open()
            self._own_batch = backend.Batch(n_tokens=self.n_batch, embd=0, n_seq_max=1)
        return self._own_batch

    @_batch.setter
    def _batch(self, batch: Any) -> None:
        """Leave llama_cpp.Llama's, which has room for one token."""

    def _close_batch(self) -> None:
        if self._own_batch is not None:
            self._own_batch.close()
            self._own_batch = None


def ask_for_embeddings(params: Any) -> None:
    """Let ctypes llama_context_params, of a known n_batch, be those of a model that embeds."""
    params.embeddings = True
    params.n_seq_max = min(params.n_batch, llama_cpp.llama_max_parallel_sequences())
    params.kv_unified = True
