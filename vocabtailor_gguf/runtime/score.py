"""Scoring of texts: how probable each of their tokens is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.softmax import States
from vocabtailor_gguf.errors import TokenIdError, VocabTailorError
from vocabtailor_gguf.runtime import states
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.runtime.states import LogProbs, Over


@dataclasses.dataclass(frozen=True)
class Score:
    """Log-probabilities of a text's tokens, each after those before it.

    Attributes:
        tokens: (n,) int32 ids.
        logprobs: (n,) float32, natural logarithms. Nothing comes before the first token of a text,
            so it has NaN; the first token of a choice follows the context.
        top: For each token the likeliest ones in its place, best first, as many as were asked for:
            dicts from id to log-probability, empty for the first token of a text.
        over: The tokens whose probabilities add up to 1: ``"vocabulary"`` or ``"active set"``.
    """

    tokens: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    top: tuple[dict[int, float], ...]
    over: Over

    @property
    def total(self) -> float:
        """Log-probability of all tokens that have one, their sum in float64."""
        return float(np.nansum(self.logprobs, dtype=np.float64))


def top_dicts(found: LogProbs) -> list[dict[int, float]]:
    """Return the likeliest tokens of each position as dicts from id to log-probability."""
    return [
        {int(i): float(p) for i, p in zip(ids, row, strict=True) if i >= 0}
        for ids, row in zip(found.top_ids, found.top, strict=True)
    ]


def _check_fits(session: Session, ids: npt.NDArray[np.int32]) -> None:
    session.check_open()
    n_vocab = session.engine.n_vocab
    if ids.size and ids.max() >= n_vocab:
        raise TokenIdError(f"token id {ids.max()}, expected 0 to {n_vocab - 1}")
    if ids.size > session.n_ctx:
        raise VocabTailorError(
            f"a text of {ids.size} tokens: expected no more than n_ctx = {session.n_ctx}"
        )


def _begin_text(session: Session, ids: npt.NDArray[np.int32]) -> None:
    """Begin a new text of (n,) tokens whose hidden states are kept; a request is superseded."""
    _check_fits(session, ids)
    session.use_chain(None)
    session.reset()
    session.feed_scored(ids)


def score_text(session: Session, ids: npt.NDArray[np.int32], over: Over, *, top: int = 0) -> Score:
    """Score (n,) token ids, which become the session's text.

    Raises:
        TokenIdError: An id is outside the vocabulary.
        VocabTailorError: They do not fit into the context, or decoding failed.
    """
    if top < 0:
        raise ValueError(f"top: found {top}, expected 0 or more")
    n = int(ids.size)
    with session.lock:
        _begin_text(session, ids)
        positions = np.arange(max(n - 1, 0))
        found = states.logprobs(session, positions, over, targets=ids[1:], of=positions, n_top=top)
    logprobs = np.full(n, np.nan, dtype=np.float32)
    logprobs[1:] = found.targets
    return Score(ids, logprobs, (*[{}] * min(n, 1), *top_dicts(found)), over)


def score_continuations(
    session: Session,
    context: npt.NDArray[np.int32],
    continuations: Sequence[npt.NDArray[np.int32]],
    over: Over,
    *,
    top: int = 0,
) -> tuple[Score, ...]:
    """Score how a context of (n,) token ids may go on; the session's text is the context then.

    The context is decoded once, where the model's memory can drop its last tokens, and the last
    token of a continuation never: nothing comes after it.

    Raises:
        TokenIdError: An id is outside the vocabulary.
        VocabTailorError: The context is empty, a text does not fit, or decoding failed.
    """
    if top < 0:
        raise ValueError(f"top: found {top}, expected 0 or more")
    n = int(context.size)
    if n == 0:
        raise VocabTailorError("the context has no tokens, expected one at least")
    with session.lock:
        for choice in continuations:
            _check_fits(session, np.concatenate([context, choice]))
        _begin_text(session, context)
        gathered = [states.gather(session, np.array([n - 1]))]
        for choice in continuations:
            if choice.size > 1:
                if not session.truncate(n):
                    _begin_text(session, context)
                session.feed_scored(choice[:-1])
            inside = np.arange(n, n + choice.size - 1)
            gathered.append(states.gather(session, inside))
        session.truncate(n)
        session.head.append(np.concatenate([context, *continuations]))  # one active set for all
        hidden = np.concatenate([s.hidden for s, _ in gathered])
        groups = tuple(g for s, _ in gathered for g in s.groups)
        begins = np.cumsum([0, *(len(s.hidden) for s, _ in gathered)])
        rows = np.concatenate([r + b for (_, r), b in zip(gathered, begins, strict=False)])
        of: list[npt.NDArray[np.intp]] = []
        at = 1
        for choice in continuations:
            # the first token follows the context, the others those before them
            of.append(np.arange(at - 1, at + choice.size - 1))
            if choice.size:
                of[-1][0] = 0
            at += max(choice.size - 1, 0)
        found = states.of_states(
            session,
            States(hidden, groups),
            rows.astype(np.intp),
            over,
            targets=np.concatenate([context[:0], *continuations]),
            of=np.concatenate([np.arange(0), *of]),
            n_top=top,
        )
    tops = top_dicts(found)
    ends = np.cumsum([c.size for c in continuations])
    return tuple(
        Score(c, found.targets[end - c.size : end], tuple(tops[i] for i in where), over)
        for c, end, where in zip(continuations, ends, of, strict=True)
    )
