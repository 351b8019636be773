"""The vocabulary store: embedding rows read when they are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.types import type_name
from vocabtailor_gguf.errors import TokenIdError, VocabTailorError


def token_array(ids: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return token ids as a contiguous (n,) int32 array.

    Raises:
        TokenIdError: They are not one-dimensional integers that fit.
    """
    array = np.asarray(ids)
    if array.size == 0:
        return np.empty(0, dtype=np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TokenIdError(f"token ids: {array.ndim}-d {array.dtype}, expected 1-d integers")
    if array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise TokenIdError(f"token ids: {array.min()} to {array.max()}, expected 0 to n_vocab - 1")
    return np.ascontiguousarray(array, dtype=np.int32)


def checked_ids(ids: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return ids as `token_array` does; arrays that it has returned are not looked through again.

    The library compares them with the vocabulary anyway.
    """
    if (
        isinstance(ids, np.ndarray)
        and ids.dtype == np.int32
        and ids.ndim == 1
        and ids.flags.c_contiguous
    ):
        return ids
    return token_array(ids)


class VocabStore:
    """A ``NAME.vocab.gguf``: validated when it is opened, read row by row.

    Example:
        >>> with VocabStore(VOCAB) as store:
        ...     store.rows([1, 2, 3]).shape == (3, store.n_embd)
        True

    Raises:
        BadFileError: The file cannot be read or is malformed.
        MismatchError: The file is not a vocabulary store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        out = native.ffi.new("vt_store **")
        native.call("vt_store_open", native.encode_path(path), out)
        self._handle: Any = native.ffi.gc(out[0], native.lib().vt_store_free)
        info = native.ffi.new("vt_store_info *")
        native.lib().vt_store_get_info(self._handle, info)
        self.n_vocab = int(info.n_vocab)
        self.n_embd = int(info.n_embd)
        self.tied = bool(info.tied)
        self.has_bias = bool(info.has_bias)
        self.architecture = _text(info.architecture)
        self.pair_id = _text(info.pair_id)
        self.source_sha256 = _text(info.source_sha256)
        self.tokenizer_sha256 = _text(info.tokenizer_sha256)
        self.embedding_type = type_name(info.embedding_type)
        self.head_type = type_name(info.head_type)
        self.n_per_layer = int(info.n_per_layer)
        self.logit_scale = float(info.logit_scale)
        self.logit_softcap = float(info.logit_softcap)
        self.head_row_bytes = int(info.head_row_bytes)

    @property
    def handle(self) -> Any:
        """The native object.

        Raises:
            VocabTailorError: The store is closed.
        """
        if self._handle is None:
            raise VocabTailorError(f"{self.path}: the store is closed")
        return self._handle

    @property
    def n_read(self) -> int:
        """Rows read from the file so far, of either table."""
        return int(native.lib().vt_store_n_read(self.handle))

    def rows(self, ids: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the embedding rows of token ids, dequantised by ggml.

        Args:
            ids: (n,) integers; repeats are allowed.

        Returns:
            (n, n_embd) float32, bit-equal to the dequantised tensor at `ids`.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            BadFileError: The file changed under us.
        """
        tokens = token_array(ids)
        out = np.empty((tokens.size, self.n_embd), dtype=np.float32)
        if tokens.size:
            native.call(
                "vt_store_rows",
                self.handle,
                native.ffi.from_buffer("int32_t[]", tokens),
                tokens.size,
                native.ffi.from_buffer("float[]", out),
                out.size,
            )
        return out

    def set_logits(self, *, scale: float, softcap: float) -> None:
        """Take another logit scale and soft cap than the file's, before a head is made.

        Args:
            scale: Factor on the logits, 1 for none.
            softcap: Logits become ``softcap * tanh(logit / softcap)``, 0 for none.

        Raises:
            VocabTailorError: They are no such numbers.
        """
        native.call("vt_store_set_logits", self.handle, scale, softcap)
        self.logit_scale, self.logit_softcap = scale, softcap

    def check_core(self, path: str | os.PathLike[str]) -> None:
        """Check that a file is the core of this store.

        Raises:
            BadFileError: The file is malformed.
            MismatchError: It is not a core, or another store's.
        """
        native.call("vt_core_check", native.encode_path(path), self.handle)

    def validate_data(self) -> None:
        """Check that every value of the tables is finite.

        Raises:
            BadFileError: One is not; the text names the tensor and the rows.
        """
        native.call("vt_store_validate_data", self.handle)

    def close(self) -> None:
        """Close the file, once no head and no call in another thread needs it. Twice is allowed."""
        self._handle = None

    def __enter__(self) -> VocabStore:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def _text(chars: Any) -> str:
    return str(native.ffi.string(chars).decode("utf-8"))
