"""A core as llama.cpp has loaded it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.lora import Adapter


class Core:
    """A core and its adapters, as llama.cpp has loaded them.

    Args:
        path: ``NAME.core.gguf``, checked.
        params: ctypes llama_model_params.
        lora: Adapters, with their scales.
        verbose: As in ``llama_cpp.Llama``.

    Attributes:
        model: The `backend.Model`.
        adapters: In the order given.
        n_bytes: Of its tensors.

    Raises:
        BadFileError: llama.cpp cannot load the core, or an adapter.
        UnsupportedError: An adapter is of the vocabulary's tables.
    """

    def __init__(
        self, path: Path, params: Any, lora: Sequence[tuple[str, float]] = (), *, verbose: bool
    ) -> None:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            self.model = undo.enter_context(
                contextlib.closing(backend.load_model(path, params, verbose=verbose))
            )
            self.adapters: list[Adapter] = []
            for one, scale in lora:
                self.adapters.append(Adapter(self.model, one, scale))
                undo.callback(self.adapters[-1].close)
            self.n_bytes = int(llama_cpp.llama_model_size(self.model.model))
            self._stack = undo.pop_all()

    def close(self) -> None:
        """Free it, adapters first. Twice is allowed."""
        self._stack.close()
