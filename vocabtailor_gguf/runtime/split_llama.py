"""A ``llama_cpp.Llama`` that loads a core and its vocabulary store instead of one model file."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import llama_cpp
import numpy as np
from llama_cpp import _internals as internals

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import BadFileError, UnsupportedError, VocabTailorError
from vocabtailor_gguf.gguf.pair import read_core, sibling_store
from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.runtime.log import collect_log, reason

# arguments of llama_cpp.Llama that would give a wrong answer here, and the value that is harmless
_UNSUPPORTED_ARGUMENTS: dict[str, Any] = {
    "logits_all": False,
    "embedding": False,
    "draft_model": None,
    "lora_path": None,
    "lora_base": None,
}


def not_supported(what: str) -> NoReturn:
    """Raise an UnsupportedError."""
    raise UnsupportedError(f"{what} is not supported by TailoredLlama yet")


class SplitLlama(llama_cpp.Llama):  # type: ignore[misc]
    """The core, the store, a head and a session, loaded and tied together.

    The store is loaded as a model that is only a vocabulary, so that all that concerns text is
    llama_cpp.Llama's own; the context is the core's.

    Args:
        model_path: ``NAME.core.gguf``.
        vocab_path: ``NAME.vocab.gguf``; by default the one beside the core.
        **kwargs: Arguments of ``llama_cpp.Llama``.

    Raises:
        BadFileError: A file cannot be read or is malformed.
        MismatchError: Core and store do not belong together.
        UnsupportedError: An argument is not supported.
    """

    _closed = True  # until loading begins

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        vocab_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, harmless in _UNSUPPORTED_ARGUMENTS.items():
            if kwargs.get(name, harmless) != harmless:
                not_supported(f"{name}={kwargs[name]!r}")
        core, vocab = Path(model_path), Path(vocab_path or sibling_store(model_path))
        header = read_core(core)
        if kwargs.get("n_ctx") == 0:
            arch = header.require("general.architecture", str)
            kwargs["n_ctx"] = header.require(f"{arch}.context_length", int)
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._closed = False
        self._store = VocabStore(vocab)
        try:
            self._load_tokenizer(core, vocab, kwargs)
            # llama_cpp.Llama has made the stack anew; freed in the opposite order: context, core,
            # session, head, store, tokenizer
            self._stack.callback(self._store.close)
            self._head = ActiveHead(self._store)
            self._stack.callback(self._head.close)
            self._session = NativeSession(self._store, self._head)
            self._stack.callback(self._session.close)
            self._load_core(core)
        except BaseException:
            self.close()
            self._store.close()
            raise

    def _load_tokenizer(self, core: Path, vocab: Path, kwargs: dict[str, Any]) -> None:
        """Let llama_cpp.Llama load the store as a model that is only a vocabulary.

        It reads all arguments into parameter structs, which the core then gets. It is given a
        batch of one token because it sizes its (n_batch, n_vocab) scores by it.
        """
        n_ctx = kwargs.get("n_ctx", 512)
        n_batch, n_ubatch = kwargs.get("n_batch", 512), kwargs.get("n_ubatch", 512)
        for name, value in (("n_ctx", n_ctx), ("n_batch", n_batch), ("n_ubatch", n_ubatch)):
            if not 1 <= value < 2**31:
                raise ValueError(f"{name}: found {value}, expected 1 to 2**31 - 1")
        arguments = {**kwargs, "n_ctx": n_ctx, "n_batch": 1, "n_ubatch": 1, "vocab_only": True}
        before = process_memory()
        try:
            # the warnings are about a context without layers, which is never used
            with collect_log(forward=bool(kwargs.get("verbose", True))) as log:
                super().__init__(str(vocab), **arguments)
        except (ValueError, RuntimeError) as e:
            raise BadFileError(f"{vocab}: {reason(log)}") from e
        self._tokenizer_bytes = max(0, process_memory().anon - before.anon)
        self._ctx.close()
        self.scores = np.empty((0, 0), dtype=np.single)
        self._candidates = None
        self.n_batch = min(n_ctx, n_batch)
        self.context_params.n_batch = self.n_batch
        self.context_params.n_ubatch = min(self.n_batch, n_ubatch)
        self.context_params.n_outputs_max = 1
        self.model_params.vocab_only = False
        self.model_path = str(core)

    def _load_core(self, core: Path) -> None:
        try:
            with collect_log() as log:
                self._core = internals.LlamaModel(
                    path_model=str(core), params=self.model_params, verbose=self.verbose
                )
                self._stack.callback(self._core.close)
                before = process_memory()
                self._session.prepare(self.context_params)
                self._ctx = internals.LlamaContext(
                    model=self._core, params=self.context_params, verbose=self.verbose
                )
                self._stack.callback(self._ctx.close)
        except ValueError as e:
            raise BadFileError(f"{core}: {reason(log)}") from e
        self._context_bytes = max(0, process_memory().data - before.data)
        self._session.attach(self._ctx.ctx)
        self._n_ctx = self.n_ctx()
        self._is_recurrent = llama_cpp.llama_model_is_recurrent(self._core.model)
        self._is_hybrid = llama_cpp.llama_model_is_hybrid(self._core.model)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the model for one step; another thread inside it is an error, not a wait."""
        if self._closed:
            raise VocabTailorError("the model is closed")
        if not self._lock.acquire(blocking=False):
            raise VocabTailorError("another thread is using this model")
        try:
            yield
        finally:
            self._lock.release()

    def close(self) -> None:
        """Free everything, after the step that is being computed. Closing twice is allowed."""
        if self._closed:
            return
        with self._lock:
            self._closed = True
            self._stack.close()

    # ---- what would need a logit for every token, or is not done yet ----

    @property
    def eval_logits(self) -> NoReturn:
        """Not supported: there are no logits of the whole vocabulary."""
        not_supported("eval_logits")

    def set_cache(self, cache: Any) -> None:
        """Not supported yet."""
        not_supported("set_cache")

    def save_state(self) -> NoReturn:
        """Not supported yet."""
        not_supported("save_state")

    def load_state(self, state: Any) -> NoReturn:
        """Not supported yet."""
        not_supported("load_state")

    def embed(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not supported yet."""
        not_supported("embed")

    def create_embedding(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not supported yet."""
        not_supported("create_embedding")

    def __getstate__(self) -> NoReturn:
        """Not supported yet."""
        not_supported("pickling")
