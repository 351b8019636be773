"""The native verifier: drafts of the active set, verified against the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.binding.store import checked_ids
from vocabtailor_gguf.binding.whole_head import WholeHead

MAX_BLOCK = 16  # SCAN_MAX_STATES of the library
UNKNOWN = 2**31 - 1  # tokens that will be asked for, where nobody knows


class Verifier:
    """Samples the tokens that the whole vocabulary would give, and audits.

    A block of tokens is drafted with the active set; then the whole LM head is read once for all
    their hidden states and names the rows that could have changed a decision. Tokens are given
    only after that. From `begin` to `end` the verifier owns where the text is; else the session
    does.

    Args:
        session: An attached session with a store and a head.
        whole: The whole head of the same store.
        vocab: The store's ctypes llama_vocab; drafts end at its end-of-generation tokens.
        max_block: Tokens drafted at once, 1 to 16. Where the session cannot truncate it is 1.
        max_pass: Tokens that one pass of the core takes while drafting, guesses included: what
            followed the same words before, what a grammar forces, what `expect` told. Up to
            `NativeSession.probe` it changes no bit.
        no_drafts: Decide each token on the whole vocabulary.
    """

    def __init__(
        self,
        session: NativeSession,
        whole: WholeHead,
        vocab: Any,
        *,
        max_block: int = MAX_BLOCK,
        max_pass: int = 1,
        no_drafts: bool = False,
    ) -> None:
        out = native.ffi.new("vt_verifier **")
        params = native.params(
            "vt_verifier_params",
            session=session.handle,
            whole=whole.handle,
            vocab=native.pointer("struct llama_vocab *", vocab),
            max_block=max_block,
            max_pass=max_pass,
            no_drafts=no_drafts,
        )
        native.call("vt_verifier_new", params, out)
        self._handle: Any = native.ffi.gc(out[0], native.lib().vt_verifier_free)
        self._needs: Any = (session.handle, whole.handle)  # live as long as this

    def begin(self, chain: Any, *, text_grammar: bool = False) -> None:
        """Begin a request with a ctypes llama_sampler chain, which is cloned.

        Args:
            chain: The chain.
            text_grammar: Its grammars name no tokens (``<think>``, ``<[1000]>``), only texts: what
                they allow is found sooner.

        Raises:
            VocabTailorError: A sampler cannot be cloned.
        """
        pointer = native.pointer("struct llama_sampler *", chain)
        native.call("vt_verifier_text_grammars", self._handle, text_grammar)
        native.call("vt_verifier_begin", self._handle, pointer)

    def end(self) -> None:
        """End the request: the session is as if nothing beyond the text had been drafted."""
        native.call("vt_verifier_end", self._handle)

    @property
    def n_past(self) -> int:
        """Tokens of the text."""
        out = native.ffi.new("int32_t *")
        native.call("vt_verifier_n_past", self._handle, out)
        return int(out[0])

    def rewind(self, pos: int) -> None:
        """Go back to a text of `pos` tokens; the chain stays as it is.

        Raises:
            VocabTailorError: The context's memory cannot go back; nothing has changed.
        """
        native.call("vt_verifier_rewind", self._handle, pos)

    def resume(self) -> None:
        """Go on from the end of another text, whose context was attached to the session.

        The chain stays as it is.
        """
        native.call("vt_verifier_resume", self._handle)

    def sample(self, *, n_left: int = UNKNOWN) -> int:
        """Return the token after the text; the chain's clone accepts it.

        Args:
            n_left: Tokens that will be asked for at most, this one included.
        """
        token = native.ffi.new("int32_t *")
        native.call("vt_verifier_sample", self._handle, n_left, token)
        return int(token[0])

    def expect(self, tokens: npt.NDArray[np.int32], *, pos: int) -> None:
        """Tell what may follow from a position on: right guesses save passes of the core.

        Args:
            tokens: (n,) ids; what stands behind one that the vocabulary has not is ignored.
            pos: Position of the first of them.
        """
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        pointer = native.ffi.from_buffer("int32_t[]", ids)
        native.call("vt_verifier_expect", self._handle, pointer, ids.size, pos)

    def decode(self, tokens: npt.NDArray[np.int32]) -> None:
        """Let the text go on with (n,) tokens; free where the draft has decoded them."""
        ids = checked_ids(tokens)
        pointer = native.ffi.from_buffer("int32_t[]", ids)
        native.call("vt_verifier_decode", self._handle, pointer, ids.size)

    def audit(self, chain: Any) -> int:
        """Return what a ctypes llama_sampler chain would choose now from the whole vocabulary.

        Neither the chain nor the active set change.
        """
        token = native.ffi.new("int32_t *")
        pointer = native.pointer("struct llama_sampler *", chain)
        native.call("vt_verifier_audit", self._handle, pointer, token)
        return int(token[0])

    def watch(self, tokens: Sequence[int]) -> None:
        """Count in `watched` how often tokens are given although the active set has them.

        Counts of those that were watched before go on.

        Raises:
            TokenIdError: An id is outside the vocabulary.
        """
        ids = checked_ids(tokens)
        pointer = native.ffi.from_buffer("int32_t[]", ids)
        native.call("vt_verifier_watch", self._handle, pointer, ids.size)

    def missed(self) -> dict[int, int]:
        """Return the tokens that were given although the active set lacked them, and how often."""
        return self._counts("vt_verifier_missed")

    def watched(self) -> dict[int, int]:
        """Return the tokens of `watch`, and how often they were given."""
        return self._counts("vt_verifier_watched")

    def _counts(self, function: str) -> dict[int, int]:
        n = native.ffi.new("size_t *")
        null = native.ffi.NULL
        native.call(function, self._handle, null, null, 0, n)
        room = n[0]
        ids = native.ffi.new("int32_t[]", room)
        counts = native.ffi.new("uint64_t[]", room)
        native.call(function, self._handle, ids, counts, room, n)
        size = min(room, n[0])
        return dict(zip(list(ids)[:size], list(counts)[:size], strict=True))

    def stats(self) -> Any:
        """Return the native vt_verifier_stats."""
        out = native.ffi.new("vt_verifier_stats *")
        native.call("vt_verifier_get_stats", self._handle, out)
        return out

    def close(self) -> None:
        """Free it, after the call that another thread may be in."""
        self._handle = self._needs = native.ffi.NULL
