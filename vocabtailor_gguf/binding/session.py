"""The native session: a llama_context of the core, a store and the active set."""

from __future__ import annotations

import ctypes
from typing import Any, Literal, get_args

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.store import VocabStore, checked_ids

Kept = Literal["none", "outputs", "all"]  # in the order of vt_kept_states


class NativeSession:
    """Decodes token ids with a llama_context and gives logits over the head's rows.

    Without a store the context takes token ids itself: that is how the unsplit model is observed
    at the very node where the split one is.
    """

    def __init__(
        self, store: VocabStore | None, head: ActiveHead | None, *, seq_id: int = 0
    ) -> None:
        """Make a session; `seq_id` is the sequence of the context that it works on."""
        out = native.ffi.new("vt_session **")
        params = native.params(
            "vt_session_params",
            store=store.handle if store else native.ffi.NULL,
            head=head.handle if head else native.ffi.NULL,
            seq_id=seq_id,
        )
        native.call("vt_session_new", params, out)
        self.handle: Any = native.ffi.gc(out[0], native.lib().vt_session_free)
        self._needs: Any = (store and store.handle, head and head.handle)  # live as long as this
        self.head = head
        self._n_embd = 0

    def prepare(self, params: Any) -> None:
        """Complete ctypes llama_context_params: the session becomes the eval callback."""
        pointer = native.pointer("struct llama_context_params *", ctypes.pointer(params))
        native.call("vt_session_prepare", self.handle, pointer)

    def attach(self, ctx: Any) -> None:
        """Tie the session to a ctypes llama_context that was made with the prepared parameters.

        Raises:
            MismatchError: The core of the context and the store do not belong together.
        """
        native.call("vt_session_attach", self.handle, native.pointer("struct llama_context *", ctx))
        self._n_embd = int(llama_cpp.llama_model_n_embd(llama_cpp.llama_get_model(ctx)))

    def decode(
        self,
        tokens: npt.NDArray[np.int32],
        *,
        pos: int,
        outputs: npt.NDArray[np.int8] | None = None,
    ) -> None:
        """Decode (n,) tokens from position `pos` on, in the place of what lies there.

        Args:
            tokens: Their ids.
            pos: At most `n_past`.
            outputs: (n,) marks of those whose logits are needed; by default the last one's.
        """
        ids = checked_ids(tokens)
        marks = native.ffi.NULL
        if outputs is not None:
            if outputs.shape != ids.shape:
                raise ValueError(f"outputs: {outputs.shape}, expected {ids.shape}")
            marks = native.ffi.from_buffer("int8_t[]", np.ascontiguousarray(outputs, dtype=np.int8))
        native.call(
            "vt_session_decode",
            self.handle,
            native.ffi.from_buffer("int32_t[]", ids),
            ids.size,
            pos,
            marks,
        )

    def decode_together(self, tokens: npt.NDArray[np.int32], *, pos: int) -> None:
        """Decode (n,) token ids in one pass, each with the attention of a batch of it alone.

        Every token is an output. Up to as many tokens as `probe` allows have the hidden states of
        single decodes, bit for bit.

        Raises:
            VocabTailorError: The tokens go beyond a position that is a multiple of 256, or as in
                `decode`.
        """
        ids = checked_ids(tokens)
        pointer = native.ffi.from_buffer("int32_t[]", ids)
        native.call("vt_session_decode_together", self.handle, pointer, ids.size, pos)

    def probe(self, most: int) -> int:
        """Return how many tokens, up to `most`, have the same bits together as one by one.

        It tries, which takes some hundred tokens of time; the session must be without a text.

        Raises:
            VocabTailorError: There is a text, or no context.
        """
        out = native.ffi.new("size_t *")
        native.call("vt_session_probe", self.handle, most, out)
        return int(out[0])

    def decode_batch(self, batch: Any) -> None:
        """Decode a ctypes llama_batch of token ids; its outputs take the place of earlier ones."""
        pointer = native.pointer("struct llama_batch *", ctypes.pointer(batch))
        native.call("vt_session_decode_batch", self.handle, pointer)

    @property
    def n_past(self) -> int:
        """Tokens in the context's memory."""
        out = native.ffi.new("int32_t *")
        native.call("vt_session_n_past", self.handle, out)
        return int(out[0])

    @property
    def can_truncate(self) -> bool:
        """Whether the last tokens can be dropped as if they had never been."""
        out = native.ffi.new("bool *")
        native.call("vt_session_can_truncate", self.handle, out)
        return bool(out[0])

    def truncate(self, pos: int) -> None:
        """Drop the tokens from `pos` on, and the outputs.

        Raises:
            VocabTailorError: The context's memory cannot go back; nothing has changed.
        """
        native.call("vt_session_truncate", self.handle, pos)

    @property
    def n_outputs(self) -> int:
        """Outputs of the last decode."""
        out = native.ffi.new("size_t *")
        native.call("vt_session_get_hidden", self.handle, native.ffi.NULL, 0, out)
        return int(out[0])

    def hidden(self) -> npt.NDArray[np.float32]:
        """Return the (n_outputs, n_embd) inputs of the LM head."""
        hidden = np.empty((self.n_outputs, self._n_embd), dtype=np.float32)
        out = native.ffi.new("size_t *")
        buffer = native.ffi.from_buffer("float[]", hidden)
        native.call("vt_session_get_hidden", self.handle, buffer, hidden.size, out)
        return hidden

    def groups(self) -> tuple[int, ...]:
        """Return how many outputs llama.cpp multiplied at once, group by group."""
        sizes = native.read_array("vt_session_get_groups", self.handle, np.uint64)
        return tuple(int(n) for n in sizes)

    def keep(self, kept: Kept) -> None:
        """Keep hidden states by position: of no token, of outputs, or of all.

        With ``"all"``, `decode` without marks makes outputs of all tokens, else of the last one.
        """
        native.call("vt_session_keep_states", self.handle, get_args(Kept).index(kept))

    def places(self, pos: int, n: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return how many states were multiplied at once with each position's, and its place.

        Both are (n,); the number is 0 where there is no hidden state.
        """
        return self._states(pos, n, native.ffi.NULL, 0)

    def states(self, pos: int, n: int) -> npt.NDArray[np.float32]:
        """Return the (n, n_embd) hidden states of positions from `pos` on, 0 where there is none.

        What lies beyond the text may be of a draft, or of a text that was cut.
        """
        hidden = np.empty((n, self._n_embd), dtype=np.float32)
        self._states(pos, n, native.ffi.from_buffer("float[]", hidden), hidden.size)
        return hidden

    def set_states(
        self,
        pos: int,
        hidden: npt.NDArray[np.float32],
        sizes: npt.NDArray[np.int32],
        places: npt.NDArray[np.int32],
    ) -> None:
        """Put (n, n_embd) states back, with their (n,) sizes and places."""
        arrays = [np.ascontiguousarray(x, dtype=np.int32) for x in (sizes, places)]
        states = np.ascontiguousarray(hidden, dtype=np.float32)
        buffers = [native.ffi.from_buffer("int32_t[]", x) for x in arrays]
        native.call(
            "vt_session_set_states",
            self.handle,
            pos,
            len(states),
            native.ffi.from_buffer("float[]", states),
            states.size,
            *buffers,
        )

    def _states(
        self, pos: int, n: int, hidden: Any, size: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        sizes = np.empty(n, dtype=np.int32)
        places = np.empty(n, dtype=np.int32)
        buffers = [native.ffi.from_buffer("int32_t[]", x) for x in (sizes, places)]
        native.call("vt_session_get_states", self.handle, pos, n, hidden, size, *buffers)
        return sizes, places

    def logits(self, i: int) -> npt.NDArray[np.float32]:
        """Return a copy of the (n_rows,) logits of output `i`."""
        assert self.head is not None
        out = native.ffi.new("float **")
        native.call("vt_session_logits", self.handle, i, out)
        buffer = native.ffi.buffer(out[0], 4 * self.head.n_rows)
        return np.frombuffer(buffer, dtype=np.float32).copy()

    def sample(self, chain: Any, i: int) -> int:
        """Apply a ctypes llama_sampler chain to output `i`, accept and return the token."""
        token = native.ffi.new("int32_t *")
        chain = native.pointer("struct llama_sampler *", chain)
        native.call("vt_session_sample", self.handle, chain, i, token)
        return int(token[0])

    def stats(self) -> Any:
        """Return the native vt_session_stats."""
        out = native.ffi.new("vt_session_stats *")
        native.call("vt_session_get_stats", self.handle, out)
        return out

    def close(self) -> None:
        """Free the session, after the call that another thread may be in."""
        self.handle = self._needs = native.ffi.NULL
