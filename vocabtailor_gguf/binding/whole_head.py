"""The native LM head over the whole vocabulary, which verifiers share."""

from __future__ import annotations

from typing import Any, Literal, get_args

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

    def _info(self) -> Any:
        out = native.ffi.new("vt_whole_head_info *")
        native.call("vt_whole_head_get_info", self.handle, out)
        return out

    def close(self) -> None:
        """Free it, after the call that another thread may be in."""
        self.handle = self._needs = native.ffi.NULL
