"""What is loaded once and shared by all texts of a model."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.binding.whole_head import Placement, WholeHead
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.core import Core
from vocabtailor_gguf.runtime.lora import set_adapters
from vocabtailor_gguf.runtime.tokenizer import Forms, Tokenizer
from vocabtailor_gguf.sets.token_set import TokenSet

# of a guessed set: more rows cost more than they save (docs/measurements.md)
_MOST_GUESSED = 8192
_SHARE_GUESSED = 12  # one of so many tokens


class Engine:
    """Store, core, tokenizer and whole head of a split model.

    Sessions keep what they were made from alive: an engine that is closed gives no more of them.

    Args:
        core: The loaded core; it is closed with the engine.
        store: The open store of the pair; it is closed with the engine.
        tokenizer: The store's vocabulary, which must outlive the engine.
        model_params: ctypes llama_model_params of the core.
        placement: Where the whole head lies.
        n_threads: Threads that prepare the whole head.
        whole_head: The whole head, where it was made; it is closed with the engine.
        forms: Other forms of words, where they were found; they are closed with the engine.
    """

    def __init__(
        self,
        core: Core,
        store: VocabStore,
        tokenizer: Tokenizer,
        model_params: Any,
        *,
        placement: Placement,
        n_threads: int,
        whole_head: WholeHead | None = None,
        forms: Forms | None = None,
    ) -> None:
        self.store = store
        self.tokenizer = tokenizer
        self._placement = placement
        self._n_threads = n_threads
        self._whole_head = whole_head
        self._forms = forms
        self._lock = threading.Lock()
        self._loaded = core
        self.core = core.model
        self.core_bytes = core.n_bytes
        overrides = [
            [one.key.decode("utf-8", "replace"), one.tag, bytes(one.value).hex()]
            for one in backend.overrides_of(model_params)
        ]
        self._loaded_with = [
            model_params.use_extra_bufts,
            model_params.n_gpu_layers,
            sorted(overrides),
        ]

    def set_adapters(self, ctx: Any) -> None:
        """Let a ctypes llama_context of the core compute with the adapters.

        Raises:
            BadFileError: llama.cpp refuses.
        """
        set_adapters(ctx, self._loaded.adapters)

    @property
    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self.store.n_vocab

    @property
    def identity(self) -> list[Any]:
        """What tells this core, as it was loaded, from others: JSON values."""
        adapters = [[a.path, os.stat(a.path).st_mtime_ns, a.scale] for a in self._loaded.adapters]
        return [self.store.pair_id, self.core_bytes, *self._loaded_with, adapters]

    @property
    def whole_head(self) -> WholeHead:
        """The LM head over every token, made when it is first asked for."""
        with self._lock:
            if self._whole_head is None:
                self._whole_head = WholeHead(
                    self.store, placement=self._placement, n_threads=self._n_threads
                )
            return self._whole_head

    @property
    def forms(self) -> Forms:
        """Other forms of words, found when they are first asked for."""
        with self._lock:
            if self._forms is None:
                self._forms = Forms(self.tokenizer.vocab)
            return self._forms

    @property
    def whole_head_bytes(self) -> int:
        """Memory that the whole head holds, without mapped pages, in bytes."""
        return 0 if self._whole_head is None else self._whole_head.n_bytes

    @property
    def forms_bytes(self) -> int:
        """Memory that the other forms of words hold, in bytes."""
        return 0 if self._forms is None else self._forms.n_bytes

    def static_ids(
        self, token_set: TokenSet | None, *, guess: bool = False
    ) -> npt.NDArray[np.int32]:
        """Return the (n,) ascending ids of always-on tokens and of a token set.

        Args:
            token_set: The set, or None.
            guess: Add the tokenizer's most frequent tokens. Where drafts are verified that costs
                little and saves rejections.
        """
        is_static = np.zeros(self.n_vocab, dtype=bool)
        is_static[self.tokenizer.always_on] = True
        if token_set is not None:
            is_static[token_set.ids] = True
        if guess:
            n = min(_MOST_GUESSED, self.n_vocab // _SHARE_GUESSED)
            is_static[self.tokenizer.common(n)] = True
        return np.flatnonzero(is_static).astype(np.int32)

    def close(self) -> None:
        """Free all; sessions that are still open must be closed first. Twice is allowed."""
        with self._lock:
            for part in (self._forms, self._whole_head, self._loaded, self.store):
                if part is not None:
                    part.close()
