"""Texts of their own on one engine: a part of TailoredLlama."""

from __future__ import annotations

import weakref
from typing import Any, Self

from vocabtailor_gguf.runtime.arguments import check_pooling
from vocabtailor_gguf.runtime.embeddings import ask_for_embeddings
from vocabtailor_gguf.runtime.facts import SplitContext
from vocabtailor_gguf.runtime.owner import SessionOwner
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.sets.learning import learned_counts
from vocabtailor_gguf.sets.token_set import TokenSet


class Forks(SessionOwner):
    """Models that share everything but their text."""

    _parent: Forks | None = None  # of a fork, which keeps it alive
    _forks: weakref.WeakSet[Any] | None = None
    _session_options: dict[str, Any]
    _counted: dict[int, int]
    _own_batch: Any
    _rows: Any
    _ctx: Any
    token_set: TokenSet | None
    cache: Any

    def fork(self, *, pooling_type: int | None = None) -> Self:
        """Return a model with a text of its own on the same engine.

        Weights, store, whole head and static rows are shared; the context, the text, the rows that
        requests add, the seed and the cache of states are the fork's own. Forks may generate at the
        same time, each in one thread. Closing a model closes its forks first.

        Args:
            pooling_type: For a fork that embeds: how llama.cpp makes one vector of a text's.

        Raises:
            ValueError: There is no such `pooling_type`; nothing has changed.
            VocabTailorError: The model is closed, or llama.cpp cannot make another context.

        Example:
            >>> llm = TailoredLlama(CORE, n_ctx=64, verbose=False)
            >>> other = llm.fork()
            >>> other.eval([5, 6])
            >>> llm.n_tokens, other.n_tokens
            (0, 2)
            >>> llm.close()
        """
        text = self._text
        if pooling_type is not None:
            check_pooling(pooling_type)
        fork = object.__new__(type(self))
        with text.lock:
            fork.__dict__.update(self.__dict__)
            fork._session = fork._forks = fork._own_batch = fork.cache = None
            fork._parent = self
            # each session puts its own callback into the parameters
            params = type(self.context_params).from_buffer_copy(self.context_params)
            if pooling_type is not None:
                params.pooling_type = pooling_type
                ask_for_embeddings(params)
            session = Session(self._engine, params, **self._session_options, share=text)
            try:
                session.watch(list(learned_counts(self.token_set)))
                fork.context_params, fork._counted = params, session.needed()
            except BaseException:
                session.close()
                raise
        fork._session = session
        fork._ctx = SplitContext(session.context, fork._rows, session)
        if self._forks is None:
            self._forks = weakref.WeakSet()
        self._forks.add(fork)
        return fork

    def _close_forks(self) -> None:
        for fork in list(self._forks or ()):
            fork.close()
