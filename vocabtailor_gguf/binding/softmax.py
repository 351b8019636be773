"""Softmax over the tokens of a head, and rows of its logits, from hidden states."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import checked_ids


@dataclasses.dataclass(frozen=True)
class States:
    """Hidden states, and which of them llama.cpp multiplies at once with the head.

    Attributes:
        hidden: (n, n_embd) float32.
        groups: Sizes of the groups, of which `n` is the sum.
    """

    hidden: npt.NDArray[np.float32]
    groups: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Softmax:
    """The probability of a token is exp(logit - max) / sum.

    Attributes:
        max: (n,) float32, the largest logit of each state.
        sum: (n,) float64, of the exponentials.
        targets: (n_targets,) float32 logits, -inf where the head lacks the token.
        top_ids: (n, n_top) int32, best first, of equal ones the higher id; -1 where there is none.
        top: (n, n_top) float32 logits.
    """

    max: npt.NDArray[np.float32]
    sum: npt.NDArray[np.float64]
    targets: npt.NDArray[np.float32]
    top_ids: npt.NDArray[np.int32]
    top: npt.NDArray[np.float32]

    def logprobs(self, logits: npt.NDArray[np.float32], states: Any) -> npt.NDArray[np.float32]:
        """Return float32 log-probabilities of logits of some states, added as stock adds them."""
        with np.errstate(divide="ignore"):
            out: npt.NDArray[np.float32] = (logits - self.max[states]) - np.log(
                self.sum[states]
            ).astype(np.float32)
        return out


def softmax(
    kind: str,
    handle: Any,
    states: States,
    *,
    n_threads: int,
    targets: npt.NDArray[np.int32] | None = None,
    of: npt.NDArray[np.int32] | None = None,
    n_top: int = 0,
) -> Softmax:
    """Return what a softmax over a head's tokens needs of each state.

    Args:
        kind: ``"head"`` or ``"whole_head"``.
        handle: The native object.
        states: Of n hidden states.
        n_threads: Threads that compute.
        targets: (n_targets,) token ids.
        of: (n_targets,) the state of each.
        n_top: Best tokens wanted of each state.

    Raises:
        TokenIdError: A target is outside the vocabulary.
    """
    ffi = native.ffi
    hidden = np.ascontiguousarray(states.hidden, dtype=np.float32)
    n = len(hidden)
    tokens = checked_ids(np.empty(0, dtype=np.int32) if targets is None else targets)
    where = checked_ids(np.empty(0, dtype=np.int32) if of is None else of)
    if tokens.size != where.size:
        raise ValueError(f"targets: {tokens.size} tokens of {where.size} states")
    out = Softmax(
        max=np.empty(n, dtype=np.float32),
        sum=np.empty(n, dtype=np.float64),
        targets=np.empty(tokens.size, dtype=np.float32),
        top_ids=np.empty((n, n_top), dtype=np.int32),
        top=np.empty((n, n_top), dtype=np.float32),
    )
    if n == 0:
        return out
    groups = np.array(states.groups, dtype=np.uintp)
    alive = [
        ffi.from_buffer("float[]", hidden),
        ffi.from_buffer("size_t[]", groups),
        ffi.from_buffer("int32_t[]", tokens),
        ffi.from_buffer("int32_t[]", where),
    ]
    params = native.params(
        "vt_softmax_params",
        hidden=alive[0],
        n_hidden=n,
        groups=alive[1],
        n_groups=groups.size,
        n_threads=n_threads,
        targets=alive[2],
        states=alive[3],
        n_targets=tokens.size,
        n_top=n_top,
    )
    found = native.params(
        "vt_softmax",
        max=ffi.from_buffer("float[]", out.max),
        sum=ffi.from_buffer("double[]", out.sum),
        target_logits=ffi.from_buffer("float[]", out.targets),
        top_ids=ffi.from_buffer("int32_t[]", out.top_ids),
        top_logits=ffi.from_buffer("float[]", out.top),
    )
    native.call(f"vt_{kind}_softmax", handle, params, found)
    return out


def logits(
    kind: str,
    handle: Any,
    hidden: npt.NDArray[np.float32],
    which: npt.NDArray[np.intp],
    n_rows: int,
    *,
    n_threads: int,
) -> npt.NDArray[np.float32]:
    """Return the (n_which, n_rows) float32 logits of some states of a group.

    Args:
        kind: ``"head"`` or ``"whole_head"``.
        handle: The native object.
        hidden: (n, n_embd) float32 states that are multiplied at once.
        which: (n_which,) the ones that are wanted.
        n_rows: Rows of the head.
        n_threads: Threads that compute.
    """
    ffi = native.ffi
    hidden = np.ascontiguousarray(hidden, dtype=np.float32)
    wanted = np.ascontiguousarray(which, dtype=np.uintp)
    out = np.empty((wanted.size, n_rows), dtype=np.float32)
    if wanted.size:
        native.call(
            f"vt_{kind}_logits",
            handle,
            ffi.from_buffer("float[]", hidden),
            len(hidden),
            ffi.from_buffer("size_t[]", wanted),
            wanted.size,
            n_threads,
            ffi.from_buffer("float[]", out),
            out.size,
        )
    return out
