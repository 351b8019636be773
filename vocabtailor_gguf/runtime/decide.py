"""The ways to choose the next token of a text."""

from __future__ import annotations

import random
from typing import Any, Protocol

from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.binding.verifier import UNKNOWN, Verifier
from vocabtailor_gguf.runtime.steps import Step


class Decide(Protocol):
    """Chooses tokens for the requests of a session; the texts of its steps are the request's."""

    def begin(self, chain: Any) -> None:
        """Start with a `backend.Sampler` at the end of the session's text."""

    def next(self, chain: Any, left: int | None) -> Step:
        """Return the step that follows the text.

        Args:
            chain: A `backend.Sampler`.
            left: Steps that will be asked for at most, this one included; None where nobody knows.
        """


class Active:
    """The active set alone decides; where it holds every row, as in full mode, that is stock's.

    Args:
        native: The session.
    """

    def __init__(self, native: NativeSession) -> None:
        self._native = native

    def begin(self, chain: Any) -> None:
        """Nothing is kept between steps."""

    def next(self, chain: Any, left: int | None) -> Step:
        """Sample from the logits of the active set."""
        token = self._native.sample(chain.sampler, self._native.n_outputs - 1)
        return Step(token)


class Audited(Active):
    """As `Active`, but a share of the steps is compared with the whole vocabulary's choice.

    Args:
        native: The session.
        verifier: Of the session.
        rate: The share, 0 to 1.
        seed: Of the choice of steps.
    """

    def __init__(
        self, native: NativeSession, verifier: Verifier, rate: float, seed: int | None
    ) -> None:
        super().__init__(native)
        self._verifier = verifier
        self._rate = rate
        self._random = random.Random(seed)

    def next(self, chain: Any, left: int | None) -> Step:
        """Sample from the active set; an audit changes nothing."""
        if self._random.random() < self._rate:
            self._verifier.audit(chain.sampler)
        return super().next(chain, left)


class Verified:
    """Drafts of the active set, proved against the whole vocabulary before they are given.

    Args:
        verifier: Of the session.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def begin(self, chain: Any) -> None:
        """Clone the chain."""
        self._verifier.begin(chain.sampler, text_grammar=getattr(chain, "text_grammar", False))

    def next(self, chain: Any, left: int | None) -> Step:
        """Return the next proved token; a block is drafted where none is left."""
        # what nobody will ask for need not be drafted
        n = UNKNOWN if left is None else max(1, min(left, UNKNOWN))
        n_whole = self._verifier.stats().n_whole
        token = self._verifier.sample(n_left=n)
        drafted = bool(self._verifier.stats().n_whole == n_whole)
        return Step(token, from_draft=drafted)
