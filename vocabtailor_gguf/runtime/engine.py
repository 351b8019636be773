"""What is loaded once and shared by all texts of a model."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.binding.whole_head import Placement, WholeHead
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.lora import Adapter, set_adapters
from vocabtailor_gguf.runtime.tokenizer import Tokenizer
from vocabtailor_gguf.sets.token_set import TokenSet

# of a guessed set: more rows cost more than they save (docs/measurements.md)
_MOST_GUESSED = 8192
_SHARE_GUESSED = 12  # one of so many tokens


class Engine:
    """Store, core, tokenizer and whole head of a split model.

    Sessions keep what they were made from alive: an engine that is closed gives no more of them.

    Args:
        core_path: ``NAME.core.gguf``, checked.
        store: The open store of the pair; it is closed with the engine.
        tokenizer: The store's vocabulary, which must outlive the engine.
        model_params: ctypes llama_model_params of the core.
        placement: Where the whole head lies.
        n_threads: Threads that prepare the whole head.
        lora: Adapters of the core, with their scales.
        verbose: As in ``llama_cpp.Llama``.

    Raises:
        BadFileError: llama.cpp cannot load the core, or an adapter.
        UnsupportedError: An adapter is of the vocabulary's tables.
    """

    def __init__(
        self,
        core_path: Path,
        store: VocabStore,
        tokenizer: Tokenizer,
        model_params: Any,
        *,
        placement: Placement,
        n_threads: int,
        lora: Sequence[tuple[str, float]] = (),
        verbose: bool = False,
    ) -> None:
        self.store = store
        self.tokenizer = tokenizer
        self._placement = placement
        self._n_threads = n_threads
        self._whole_head: WholeHead | None = None
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        # freed in the opposite order: whole head, core, store
        self._stack.callback(store.close)
        self.core = backend.load_model(core_path, model_params, verbose=verbose)
        self._stack.callback(self.core.close)
        self.core_bytes = int(llama_cpp.llama_model_size(self.core.model))
        overrides = [
            [one.key.decode("utf-8", "replace"), one.tag, bytes(one.value).hex()]
            for one in backend.overrides_of(model_params)
        ]
        self._loaded_with = [
            model_params.use_extra_bufts,
            model_params.n_gpu_layers,
            sorted(overrides),
        ]
        self._adapters = [self._load_adapter(path, scale) for path, scale in lora]

    def _load_adapter(self, path: str, scale: float) -> Adapter:
        adapter = Adapter(self.core, path, scale)
        self._stack.callback(adapter.close)
        return adapter

    def set_adapters(self, ctx: Any) -> None:
        """Let a ctypes llama_context of the core compute with the adapters.

        Raises:
            BadFileError: llama.cpp refuses.
        """
        set_adapters(ctx, self._adapters)

    @property
    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self.store.n_vocab

    @property
    def identity(self) -> list[Any]:
        """What tells this core, as it was loaded, from others: JSON values."""
        adapters = [[a.path, os.stat(a.path).st_mtime_ns, a.scale] for a in self._adapters]
        return [self.store.pair_id, self.core_bytes, *self._loaded_with, adapters]

    @property
    def whole_head(self) -> WholeHead:
        """The LM head over every token, made when it is first asked for."""
        with self._lock:
            if self._whole_head is None:
                self._whole_head = WholeHead(
                    self.store, placement=self._placement, n_threads=self._n_threads
                )
                self._stack.callback(self._whole_head.close)
            return self._whole_head

    @property
    def whole_head_bytes(self) -> int:
        """Memory that the whole head holds, without mapped pages, in bytes."""
        return 0 if self._whole_head is None else self._whole_head.n_bytes

    def static_ids(
        self, token_set: TokenSet | None, *, guess: bool = False
    ) -> npt.NDArray[np.int32]:
        """Return the (n,) ascending ids of always-on tokens and of a token set.

        Args:
            token_set: The set, or None.
            guess: Add the tokenizer's most frequent tokens. Where drafts are verified that costs
                little and saves rejections.
        """
        ids = self.tokenizer.always_on
        if token_set is not None:
            ids = np.union1d(ids, token_set.ids)
        if guess:
            n = min(_MOST_GUESSED, self.n_vocab // _SHARE_GUESSED)
            ids = np.union1d(ids, self.tokenizer.common(n))
        return ids.astype(np.int32)

    def close(self) -> None:
        """Free all; sessions that are still open must be closed first. Twice is allowed."""
        self._stack.close()
