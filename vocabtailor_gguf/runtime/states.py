"""From the hidden states of a text to logits and log-probabilities, on demand.

A session keeps n_embd floats for each position. What is made of them here has the bits that
llama.cpp would have computed at once: states of one micro-batch are multiplied together again, and
where a text was cut inside of one, zeros stand for what is gone.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import softmax
from vocabtailor_gguf.errors import VocabTailorError

if TYPE_CHECKING:
    from vocabtailor_gguf.runtime.session import Session

Over = Literal["active set", "vocabulary"]

# beside those that are asked for: logits that differ may have one log-probability
_MORE = 8


@dataclasses.dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of tokens at positions of a text.

    Attributes:
        targets: (n_targets,) float32.
        top_ids: (n, n_top) int32, best first, of equal ones the higher id, as stock sorts them;
            -1 where there are fewer tokens.
        top: (n, n_top) float32.
    """

    targets: npt.NDArray[np.float32]
    top_ids: npt.NDArray[np.int32]
    top: npt.NDArray[np.float32]


def has_states(session: Session, first: int, end: int) -> npt.NDArray[np.bool_]:
    """Return for positions first .. end of the text whether their hidden states are there."""
    sizes, _ = session.native.places(first, max(end - first, 0))
    return sizes > 0


def gather(
    session: Session, positions: npt.NDArray[np.intp]
) -> tuple[softmax.States, npt.NDArray[np.intp]]:
    """Return the states of (n,) ascending positions with their groups, and which are theirs.

    Raises:
        VocabTailorError: A position has no hidden state.
    """
    if positions.size == 0:
        return softmax.States(np.empty((0, session.engine.store.n_embd), np.float32), ()), positions
    first = int(positions[0])
    sizes, places = session.native.places(first, int(positions[-1]) + 1 - first)
    sizes, places = sizes[positions - first], places[positions - first]
    missing = positions[(sizes == 0) | (positions >= session.n_tokens)]
    if missing.size:
        raise VocabTailorError(
            f"position {missing[0]}: no hidden state; they are kept with logits_all=True"
        )
    blocks: list[npt.NDArray[np.float32]] = []
    groups: list[int] = []
    rows = np.empty(positions.size, dtype=np.intp)
    begins = positions - places
    new = np.flatnonzero((np.diff(begins, prepend=-1) != 0) | (np.diff(sizes, prepend=0) != 0))
    n_rows = 0
    for i, end in zip(new, [*new[1:], positions.size], strict=True):
        begin, size = int(begins[i]), int(sizes[i])
        block = session.native.states(begin, size)
        now, where = session.native.places(begin, size)
        block[(now != size) | (where != np.arange(size))] = 0
        blocks.append(block)
        groups.append(size)
        rows[i:end] = n_rows + places[i:end]
        n_rows += size
    return softmax.States(np.concatenate(blocks), tuple(groups)), rows


def pack(session: Session) -> npt.NDArray[np.float32]:
    """Return the (n_tokens, n_embd + 2) hidden states of the text: size and place come last."""
    with session.lock:
        n = session.n_tokens
        sizes, places = session.native.places(0, n)
        hidden = session.native.states(0, n)
        return np.column_stack([hidden, sizes, places]).astype(np.float32)


def unpack(session: Session, packed: npt.NDArray[np.float32]) -> None:
    """Put back what `pack` returned; an array of another shape, such as stock's, is left alone."""
    with session.lock:
        shape = (session.n_tokens, session.engine.store.n_embd + 2)
        if packed.shape == shape and len(packed):
            sizes, places = packed[:, -2].astype(np.int32), packed[:, -1].astype(np.int32)
            session.native.set_states(0, packed[:, :-2], sizes, places)


def _head(session: Session, over: Over) -> tuple[Literal["head", "whole_head"], Any]:
    """Return which head is meant, and its native object."""
    if over == "active set" or session.head.n_rows == session.engine.n_vocab:
        return "head", session.head.handle
    return "whole_head", session.engine.whole_head.handle


def _n_threads(session: Session, groups: tuple[int, ...]) -> int:
    params = session.context.params
    return int(params.n_threads if max(groups, default=1) == 1 else params.n_threads_batch)


def logits(
    session: Session, positions: npt.NDArray[np.intp], over: Over
) -> npt.NDArray[np.float32]:
    """Return the (n, n_vocab) logits of (n,) positions; NaN where a position has no state.

    Over the active set, all other tokens have -inf.
    """
    out = np.full((positions.size, session.engine.n_vocab), np.nan, dtype=np.float32)
    with session.lock:
        session.check_open()
        end = session.n_tokens
        kept = has_states(session, 0, end)
        there = np.flatnonzero((positions >= 0) & (positions < end))
        there = there[kept[positions[there]]]
        there = there[np.argsort(positions[there], kind="stable")]
        states, rows = gather(session, positions[there])
        _fill(session, states, rows, over, out, there)
        last = np.flatnonzero(positions == end - 1)
        if session.n_fed and not kept[-1] and last.size:
            n = session.native.groups()[-1]
            states = softmax.States(session.native.hidden()[-n:], (n,))
            _fill(session, states, np.full(last.size, n - 1), over, out, last)
    return out


def output_logits(
    session: Session, outputs: npt.NDArray[np.intp], over: Over
) -> npt.NDArray[np.float32]:
    """Return the (n, n_vocab) logits of (n,) outputs of the last batch, which is of any text."""
    out = np.empty((outputs.size, session.engine.n_vocab), dtype=np.float32)
    with session.lock:
        session.check_open()
        states = softmax.States(session.native.hidden(), session.native.groups())
        _fill(session, states, outputs, over, out, np.arange(outputs.size))
    return out


def _fill(
    session: Session,
    states: softmax.States,
    rows: npt.NDArray[np.intp],
    over: Over,
    out: npt.NDArray[np.float32],
    at: npt.NDArray[np.intp],
) -> None:
    """Write the logits of some states, `rows`, to rows `at` of an (m, n_vocab) array."""
    kind, handle = _head(session, over)
    ids = session.head.ids() if kind == "head" else None
    n_threads = _n_threads(session, states.groups)
    begin = 0
    for size in states.groups:
        mine = (rows >= begin) & (rows < begin + size)
        if mine.any():
            block = softmax.logits(
                kind,
                handle,
                states.hidden[begin : begin + size],
                rows[mine] - begin,
                out.shape[1] if ids is None else ids.size,
                n_threads=n_threads,
            )
            if ids is None:
                out[at[mine]] = block
            else:
                out[at[mine]] = -np.inf
                out[at[mine][:, None], ids] = block
        begin += size


def logprobs(
    session: Session,
    positions: npt.NDArray[np.intp],
    over: Over,
    *,
    targets: npt.NDArray[np.int32] | None = None,
    of: npt.NDArray[np.intp] | None = None,
    n_top: int = 0,
) -> LogProbs:
    """Return log-probabilities after (n,) ascending positions.

    Args:
        session: Whose text.
        positions: They must have hidden states.
        over: The tokens whose probabilities add up to 1.
        targets: (n_targets,) token ids.
        of: (n_targets,) after which of the positions each of them comes.
        n_top: Best tokens wanted.

    Raises:
        TokenIdError: A target is outside the vocabulary.
        VocabTailorError: A position has no hidden state.
    """
    with session.lock:
        session.check_open()
        states, rows = gather(session, positions)
        return of_states(session, states, rows, over, targets=targets, of=of, n_top=n_top)


def of_states(
    session: Session,
    states: softmax.States,
    rows: npt.NDArray[np.intp],
    over: Over,
    *,
    targets: npt.NDArray[np.int32] | None = None,
    of: npt.NDArray[np.intp] | None = None,
    n_top: int = 0,
) -> LogProbs:
    """Return log-probabilities of states of `gather`, which may be those of several texts.

    Args:
        session: Whose heads.
        states: With their groups.
        rows: (n,) which of them count.
        over: The tokens whose probabilities add up to 1.
        targets: (n_targets,) token ids.
        of: (n_targets,) after which of `rows` each of them comes.
        n_top: Best tokens wanted.
    """
    kind, handle = _head(session, over)
    where = None if of is None else rows[of].astype(np.int32)
    found = softmax.softmax(
        kind,
        handle,
        states,
        n_threads=_n_threads(session, states.groups),
        targets=targets,
        of=where,
        n_top=min(n_top + _MORE, session.engine.n_vocab) if n_top else 0,
    )
    top = found.logprobs(found.top, np.arange(len(found.top))[:, None])[rows]
    ids = found.top_ids[rows]
    order = np.lexsort((ids, top), axis=-1)[:, ::-1][:, :n_top]
    return LogProbs(
        targets=found.logprobs(found.targets, where) if where is not None else found.targets,
        top_ids=np.take_along_axis(ids, order, axis=1),
        top=np.take_along_axis(top, order, axis=1),
    )
