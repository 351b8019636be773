"""Exact mode: drafts of the active set, verified against the whole vocabulary. And audits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.hook import Hook
from vocabtailor_gguf.binding.store import token_array

MAX_BLOCK = 16  # SCAN_MAX_STATES of the library

Placement = Literal["memory", "mapped", "streamed"]


class Exact:
    """Samples the tokens that the whole vocabulary would give.

    A block of tokens is drafted with the active set; then the whole LM head is read once for all
    their hidden states and names the rows that could have changed a decision. Tokens are given
    only after that.

    Args:
        hook: An attached hook with a store and a head.
        vocab: The store's ctypes llama_vocab; drafts end at its end-of-generation tokens.
        placement: Where the whole head lies: ``"memory"``, a copy; ``"mapped"``, pages of the
            store's file, which the system may drop and read again; ``"streamed"``, read through a
            buffer of some MB at each verification.
        max_block: Tokens drafted at once, 1 to 16; 1 where the context's memory cannot drop its
            last tokens.

    Raises:
        BadFileError: The whole head cannot be read.
        ValueError: There is no such placement.
    """

    def __init__(
        self,
        hook: Hook,
        vocab: Any,
        *,
        placement: Placement,
        max_block: int = MAX_BLOCK,
    ) -> None:
        places = get_args(Placement)  # in the order of vt_placement
        if placement not in places:
            raise ValueError(f"whole_head: found {placement!r}, expected one of {places}")
        out = native.ffi.new("vt_exact **")
        pointer = native.pointer("struct llama_vocab *", vocab)
        place = places.index(placement)
        native.call("vt_exact_new", hook.handle, pointer, place, max_block, out)
        self._handle: Any = native.ffi.gc(out[0], native.lib().vt_exact_free)
        self._needs: Any = hook.handle  # lives as long as this

    def watch(self, tokens: Sequence[int]) -> None:
        """Count in `watched` how often tokens are given although the active set has them.

        Counts of those that were watched before go on.

        Raises:
            TokenIdError: An id is outside the vocabulary.
        """
        ids = token_array(tokens)
        pointer = native.ffi.from_buffer("int32_t[]", ids)
        native.call("vt_exact_watch", self._handle, pointer, ids.size)

    def begin(self, chain: Any) -> None:
        """Start with a ctypes llama_sampler chain, which is cloned.

        A chain with samplers that are not llama.cpp's own, such as Python callbacks, decides by
        itself, on the whole vocabulary; it must outlive the text.

        Raises:
            VocabTailorError: It is no chain, or has no samplers.
        """
        pointer = native.pointer("struct llama_sampler *", chain)
        native.call("vt_exact_begin", self._handle, pointer)

    def sample(self, n_tokens: int, *, max_block: int = MAX_BLOCK) -> int:
        """Return the token after a text of `n_tokens`; the chain's clone accepts it."""
        token = native.ffi.new("int32_t *")
        native.call("vt_exact_sample", self._handle, n_tokens, max_block, token)
        return int(token[0])

    def decode(self, tokens: npt.NDArray[np.int32], *, pos: int) -> None:
        """Decode (n,) tokens at position `pos`, unless the draft has done so."""
        ids = token_array(tokens)
        pointer = native.ffi.from_buffer("int32_t[]", ids)
        native.call("vt_exact_eval", self._handle, pointer, ids.size, pos)

    def audit(self, chain: Any) -> int:
        """Return what a ctypes llama_sampler chain would choose now from the whole vocabulary.

        Neither the chain nor the active set change.
        """
        token = native.ffi.new("int32_t *")
        pointer = native.pointer("struct llama_sampler *", chain)
        native.call("vt_exact_audit", self._handle, pointer, token)
        return int(token[0])

    def missed(self) -> dict[int, int]:
        """Return the tokens that were given although the active set lacked them, and how often."""
        return self._counts("vt_exact_missed")

    def watched(self) -> dict[int, int]:
        """Return the tokens of `watch`, and how often they were given."""
        return self._counts("vt_exact_watched")

    def _counts(self, function: str) -> dict[int, int]:
        n = native.ffi.new("size_t *")
        null = native.ffi.NULL
        native.call(function, self._handle, null, null, 0, n)
        ids = native.ffi.new("int32_t[]", n[0])
        counts = native.ffi.new("uint64_t[]", n[0])
        native.call(function, self._handle, ids, counts, n[0], n)
        return dict(zip(list(ids), list(counts), strict=True))

    def stats(self) -> Any:
        """Return the native vt_exact_stats."""
        out = native.ffi.new("vt_exact_stats *")
        native.lib().vt_exact_get_stats(self._handle, out)
        return out

    def close(self) -> None:
        """Free it, after the call that another thread may be in."""
        self._handle = self._needs = native.ffi.NULL
