"""The native LM head over the whole vocabulary, which verifiers share."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import VocabStore

Placement = Literal["memory", "mapped", "streamed"]


class WholeHead:
    """Names the rows of the whole LM head that could change a decision.

    Args:
        store: The store.
        placement: Where the whole head lies: ``"memory"``, a copy; ``"mapped"``, pages of the
            store's file, which the system may drop and read again; ``"streamed"``, read through a
            buffer of some MB at each verification.
        n_threads: Threads that measure the rows.

    Raises:
        BadFileError: The rows cannot be read.
        ValueError: There is no such placement.
    """

    def __init__(self, store: VocabStore, *, placement: Placement, n_threads: int = 1) -> None:
        places = get_args(Placement)  # in the order of vt_placement
        if placement not in places:
            raise ValueError(f"whole_head: found {placement!r}, expected one of {places}")
        out = native.ffi.new("vt_whole_head **")
        params = native.params(
            "vt_whole_head_params", placement=places.index(placement), n_threads=n_threads
        )
        native.call("vt_whole_head_new", store.handle, params, out)
        self.handle: Any = native.ffi.gc(out[0], native.lib().vt_whole_head_free)
        self._needs: Any = store.handle  # lives as long as this

    @property
    def n_bytes(self) -> int:
        """Memory held, without mapped pages."""
        return int(self._info().n_bytes)

    @property
    def own_kernel(self) -> bool:
        """Whether it is scanned by a kernel of this library, not by ggml's product."""
        return bool(self._info().own_kernel)

    def logits(
        self, hidden: npt.NDArray[np.float32], *, n_vocab: int, n_threads: int = 1
    ) -> npt.NDArray[np.float32]:
        """Return all (n_vocab,) float32 logits of one (n_embd,) float32 state."""
        state = np.ascontiguousarray(hidden, dtype=np.float32)
        out = np.empty(n_vocab, dtype=np.float32)
        native.call(
            "vt_whole_head_logits",
            self.handle,
            native.ffi.from_buffer("float[]", state),
            n_threads,
            native.ffi.from_buffer("float[]", out),
            out.size,
        )
        return out

    def log_probs(
        self,
        hidden: npt.NDArray[np.float32],
        targets: npt.NDArray[np.int32] | None,
        *,
        top: int = 0,
        n_threads: int = 1,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return log-probabilities over the whole vocabulary; its logits are never held at once.

        Args:
            hidden: (n, n_embd) float32 inputs of the head.
            targets: (n,) int32 ids, one after each state, or None.
            top: How many of the likeliest ids to return for each state.
            n_threads: Threads.

        Returns:
            Log-probabilities of the targets (n,) float32, the likeliest ids (n, top) int32, the
            best first, and their log-probabilities (n, top) float32.

        Raises:
            TokenIdError: A target is outside the vocabulary.
            VocabTailorError: A hidden state is not finite.
        """
        states = np.ascontiguousarray(hidden, dtype=np.float32)
        n = len(states)
        logprobs = np.empty(0 if targets is None else n, dtype=np.float32)
        ids = np.empty((n, top), dtype=np.int32)
        best = np.empty((n, top), dtype=np.float32)
        if n:
            null = native.ffi.NULL
            native.call(
                "vt_whole_head_log_probs",
                self.handle,
                native.ffi.from_buffer("float[]", states),
                n,
                null if targets is None else native.ffi.from_buffer("int32_t[]", targets),
                top,
                n_threads,
                null if targets is None else native.ffi.from_buffer("float[]", logprobs),
                native.ffi.from_buffer("int32_t[]", ids) if top else null,
                native.ffi.from_buffer("float[]", best) if top else null,
            )
        return logprobs, ids, best

    def _info(self) -> Any:
        out = native.ffi.new("vt_whole_head_info *")
        native.call("vt_whole_head_get_info", self.handle, out)
        return out

    def close(self) -> None:
        """Free it, after the call that another thread may be in."""
        self.handle = self._needs = native.ffi.NULL
