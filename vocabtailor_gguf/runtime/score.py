"""How likely a model finds a text: log-probabilities, without logits of every token at once."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.runtime.session import Session

Over = Literal["vocabulary", "active set"]

_STATES = 64  # whose logits of the active set are held at once


@dataclasses.dataclass(frozen=True)
class Score:
    """Log-probabilities of the tokens of a text.

    Attributes:
        tokens: (n,) int32 ids.
        logprobs: (n,) float32, natural logarithms; nan for a token that nothing comes before.
        top: For each token the likeliest ids in its place and their log-probabilities, the best
            first; empty where none were asked for.
        over: What the probabilities add up to one over.
    """

    tokens: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    top: tuple[dict[int, float], ...]
    over: Over = "vocabulary"

    @property
    def total(self) -> float:
        """The log-probability of all tokens that have one."""
        return float(np.nansum(self.logprobs.astype(np.float64)))


def score_text(
    session: Session, ids: npt.NDArray[np.int32], *, top: int, over: Over, n_threads: int
) -> Score:
    """Score a text of its own; a live request is superseded.

    Args:
        session: It holds the text afterwards.
        ids: (n,) token ids, of `token_array`.
        top: How many of the likeliest ids to return for each token.
        over: What the probabilities add up to one over.
        n_threads: Threads of the head's products.

    Raises:
        TokenIdError: An id is outside the vocabulary.
        VocabTailorError: The text does not fit into the context, or decoding failed.
    """
    with session.lock:
        session.use_chain(None)
        session.reset()
        hidden = session.feed_all(ids)
        found = _log_probs(session, hidden[:-1], ids[1:], top, over, n_threads)
    nothing = np.full(1 if ids.size else 0, np.nan, dtype=np.float32)
    first: tuple[dict[int, float], ...] = ({},) if ids.size else ()
    return Score(ids, np.concatenate([nothing, found[0]]), (*first, *found[1]), over)


def score_continuations(
    session: Session,
    context: npt.NDArray[np.int32],
    continuations: list[npt.NDArray[np.int32]],
    *,
    top: int,
    over: Over,
    n_threads: int,
) -> tuple[Score, ...]:
    """Score several continuations of one context, which is decoded once.

    Raises:
        TokenIdError: An id is outside the vocabulary.
        VocabTailorError: The context is empty, a text does not fit, or decoding failed.
    """
    if context.size == 0:
        raise VocabTailorError("the context has no tokens, expected one at least")
    scores = []
    with session.lock:
        session.use_chain(None)
        session.reset()
        end = session.feed_all(context)[-1:]
        for ids in continuations:
            if session.n_tokens != context.size and not session.truncate(int(context.size)):
                session.reset()
                session.feed_all(context)
            states = np.concatenate([end, session.feed_all(ids)])[: ids.size]
            logprobs, best = _log_probs(session, states, ids, top, over, n_threads)
            scores.append(Score(ids, logprobs, best, over))
    return tuple(scores)


def _log_probs(
    session: Session,
    hidden: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int32],
    top: int,
    over: Over,
    n_threads: int,
) -> tuple[npt.NDArray[np.float32], tuple[dict[int, float], ...]]:
    targets = np.ascontiguousarray(targets)
    if over == "vocabulary":
        whole = session.engine.whole_head
        found, ids, best = whole.log_probs(hidden, targets, top=top, n_threads=n_threads)
    else:
        found, ids, best = _over_active(session, hidden, targets, top, n_threads)
    pairs = zip(ids.tolist(), best.tolist(), strict=True)
    return found, tuple(dict(zip(i, b, strict=True)) for i, b in pairs)


def _over_active(
    session: Session,
    hidden: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int32],
    top: int,
    n_threads: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return what `WholeHead.log_probs` does, over the rows of the active set."""
    rows = session.head.ids()
    place = np.full(session.engine.n_vocab, -1, dtype=np.int64)
    place[rows] = np.arange(rows.size)
    logprobs = np.empty(len(hidden), dtype=np.float32)
    ids = np.empty((len(hidden), top), dtype=np.int32)
    best = np.empty((len(hidden), top), dtype=np.float32)
    for i in range(0, len(hidden), _STATES):
        part = slice(i, i + _STATES)
        logits = session.head.compute(hidden[part], n_threads=n_threads).astype(np.float64)
        most = logits.max(axis=1, keepdims=True)
        logits -= most + np.log(np.exp(logits - most).sum(axis=1, keepdims=True))
        logprobs[part] = logits[np.arange(len(logits)), place[targets[part]]]
        if top:
            order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
            ids[part] = rows[order]
            best[part] = np.take_along_axis(logits, order, axis=1)
    return logprobs, ids, best
