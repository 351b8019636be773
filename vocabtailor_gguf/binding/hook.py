"""The native head and hook: a llama_context of the core, a store and the active set."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import VocabStore, token_array


class ActiveHead:
    """The LM head over a set of token ids. Static rows first, then appended ones."""

    def __init__(self, store: VocabStore) -> None:
        out = native.ffi.new("vt_head **")
        native.call("vt_head_new", store.handle, out)
        self.handle: Any = native.ffi.gc(out[0], native.lib().vt_head_free)
        self._store = store
        self._needs: Any = store.handle  # lives as long as the head, even if the store is closed

    def set_static(self, ids: npt.NDArray[np.int32]) -> None:
        """Replace the whole set by (n,) ids, in this order."""
        tokens = token_array(ids)
        pointer = native.ffi.from_buffer("int32_t[]", tokens)
        native.call("vt_head_set_static", self.handle, pointer, tokens.size)

    def append(self, ids: npt.NDArray[np.int32]) -> int:
        """Add (n,) ids that are not in the set yet; return how many were added."""
        added = native.ffi.new("size_t *")
        tokens = token_array(ids)
        pointer = native.ffi.from_buffer("int32_t[]", tokens)
        native.call("vt_head_append", self.handle, pointer, tokens.size, added)
        return int(added[0])

    def reset(self) -> None:
        """Go back to the static rows; nothing is read."""
        native.call("vt_head_reset", self.handle)

    @property
    def n_static(self) -> int:
        """Static rows."""
        return int(native.lib().vt_head_n_static(self.handle))

    @property
    def n_rows(self) -> int:
        """Rows of the set."""
        return int(native.lib().vt_head_n_rows(self.handle))

    @property
    def n_bytes(self) -> int:
        """Memory held for rows, ids and the product, in bytes."""
        return int(native.lib().vt_head_n_bytes(self.handle))

    def ids(self) -> npt.NDArray[np.int32]:
        """Return a copy of the (n_rows,) ids in row order."""
        n = self.n_rows
        pointer = native.lib().vt_head_ids(self.handle)
        return np.frombuffer(native.ffi.buffer(pointer, 4 * n), dtype=np.int32).copy()

    def compute(
        self, hidden: npt.NDArray[np.float32], *, n_threads: int
    ) -> npt.NDArray[np.float32]:
        """Return the (B, n_rows) float32 logits of (B, n_embd) float32 hidden states."""
        hidden = np.ascontiguousarray(hidden, dtype=np.float32)
        if hidden.ndim != 2 or hidden.shape[1] != self._store.n_embd:
            raise ValueError(f"hidden states: {hidden.shape}, expected (B, {self._store.n_embd})")
        logits = np.empty((len(hidden), self.n_rows), dtype=np.float32)
        native.call(
            "vt_head_compute",
            self.handle,
            native.ffi.from_buffer("float[]", hidden),
            len(hidden),
            n_threads,
            native.ffi.from_buffer("float[]", logits),
            logits.size,
        )
        return logits

    def close(self) -> None:
        """Free the rows, after the call that another thread may be in."""
        self.handle = self._needs = native.ffi.NULL


class Hook:
    """Decodes token ids with a llama_context and gives logits over the head's rows.

    Without a store the context takes token ids itself: that is how the unsplit model is observed
    at the very node where the split one is.
    """

    def __init__(self, store: VocabStore | None, head: ActiveHead | None) -> None:
        out = native.ffi.new("vt_hook **")
        null = native.ffi.NULL
        native.call(
            "vt_hook_new", store.handle if store else null, head.handle if head else null, out
        )
        self.handle: Any = native.ffi.gc(out[0], native.lib().vt_hook_free)
        self._needs: Any = (store and store.handle, head and head.handle)  # live as long as this
        self._head = head
        self._n_embd = 0

    def prepare(self, params: Any) -> None:
        """Put the callback into ctypes llama_context_params."""
        function = native.ffi.addressof(native.lib(), "vt_hook_eval_callback")
        address = int(native.ffi.cast("uintptr_t", function))
        params.cb_eval = ctypes.cast(address, llama_cpp.llama_cpp.ggml_backend_sched_eval_callback)
        params.cb_eval_user_data = int(native.ffi.cast("uintptr_t", self.handle))

    def attach(self, ctx: Any) -> None:
        """Tie the hook to a ctypes llama_context that was made with the prepared parameters.

        Raises:
            MismatchError: The core of the context and the store do not belong together.
        """
        native.call("vt_hook_attach", self.handle, native.pointer("struct llama_context *", ctx))
        self._n_embd = int(llama_cpp.llama_model_n_embd(llama_cpp.llama_get_model(ctx)))

    def decode(
        self,
        tokens: npt.NDArray[np.int32],
        *,
        pos: int,
        outputs: npt.NDArray[np.int8] | None = None,
    ) -> None:
        """Decode (n,) tokens from position `pos` on; `outputs` marks those that need logits."""
        ids = token_array(tokens)
        marks = native.ffi.NULL
        if outputs is not None:
            if outputs.shape != ids.shape:
                raise ValueError(f"outputs: {outputs.shape}, expected {ids.shape}")
            marks = native.ffi.from_buffer("int8_t[]", np.ascontiguousarray(outputs, dtype=np.int8))
        native.call(
            "vt_hook_decode",
            self.handle,
            native.ffi.from_buffer("int32_t[]", ids),
            ids.size,
            pos,
            marks,
        )

    @property
    def n_outputs(self) -> int:
        """Outputs of the last decode."""
        return int(native.lib().vt_hook_n_outputs(self.handle))

    def hidden(self) -> npt.NDArray[np.float32]:
        """Return a copy of the (n_outputs, n_embd) inputs of the LM head."""
        pointer = native.lib().vt_hook_hidden(self.handle)
        size = self.n_outputs * self._n_embd
        flat = np.frombuffer(native.ffi.buffer(pointer, 4 * size), dtype=np.float32)
        return flat.reshape(self.n_outputs, self._n_embd).copy()

    def logits(self, i: int) -> npt.NDArray[np.float32]:
        """Return a copy of the (n_rows,) logits of output `i`."""
        assert self._head is not None
        out = native.ffi.new("float **")
        native.call("vt_hook_logits", self.handle, i, out)
        buffer = native.ffi.buffer(out[0], 4 * self._head.n_rows)
        return np.frombuffer(buffer, dtype=np.float32).copy()

    def sample(self, chain: Any, i: int) -> int:
        """Apply a ctypes llama_sampler chain to output `i`, accept and return the token."""
        token = native.ffi.new("int32_t *")
        chain = native.pointer("struct llama_sampler *", chain)
        native.call("vt_hook_sample", self.handle, chain, i, token)
        return int(token[0])

    def stats(self) -> Any:
        """Return the native vt_hook_stats."""
        out = native.ffi.new("vt_hook_stats *")
        native.lib().vt_hook_get_stats(self.handle, out)
        return out

    def close(self) -> None:
        """Free the hook, after the call that another thread may be in."""
        self.handle = self._needs = native.ffi.NULL
