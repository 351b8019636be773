"""The tokens of a vocabulary: their texts, and which of them stay in every active set."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import token_array
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.runtime.backend import collect_log, reason

_MAX_PIECE = 1024  # bytes


def load_tokenizer(vocab_path: str | os.PathLike[str]) -> llama_cpp.Llama:
    """Return llama.cpp's tokenizer of a store: it tokenises, and can do nothing else.

    Raises:
        BadFileError: llama.cpp cannot load it.
    """
    # the warnings are about a context without layers, which is never used
    with collect_log(forward=False) as log:
        try:
            return llama_cpp.Llama(
                os.fspath(vocab_path),
                vocab_only=True,
                n_ctx=8,
                n_batch=1,
                n_ubatch=1,
                verbose=False,
            )
        except ValueError as e:
            raise BadFileError(f"{vocab_path}: llama.cpp cannot load it: {reason(log)}") from e


def always_on(vocab: Any) -> npt.NDArray[np.int32]:
    """Return the (n,) int32 ascending ids that stay in every active set.

    Special and end-of-generation tokens, every token of one byte, and white space.

    Args:
        vocab: A ctypes llama_vocab.
    """
    pointer = native.pointer("struct llama_vocab *", vocab)
    ids = np.empty(llama_cpp.llama_vocab_n_tokens(vocab), dtype=np.int32)  # so one look is enough
    n = native.ffi.new("size_t *")
    buffer = native.ffi.from_buffer("int32_t[]", ids)
    native.call("vt_vocab_always_on", pointer, buffer, ids.size, n)
    return ids[: n[0]].copy()


class Forms:
    """Finds the tokens that write a word in another form.

    Forms are with and without a leading space, as it is, in lower case, capitalised and in upper
    case (simple case mapping of Latin, Greek, Cyrillic and Armenian letters).

    Args:
        vocab: A ctypes llama_vocab, which must outlive this.

    Example:
        >>> tokenizer = load_tokenizer(VOCAB)
        >>> ids = tokenizer.tokenize(b"Rome", add_bos=False)
        >>> set(Forms(tokenizer._model.vocab).find(ids)).isdisjoint(ids)
        True
    """

    def __init__(self, vocab: Any) -> None:
        out = native.ffi.new("vt_forms **")
        native.call("vt_forms_new", native.pointer("struct llama_vocab *", vocab), out)
        self._handle: Any = native.ffi.gc(out[0], native.lib().vt_forms_free)

    @property
    def n_bytes(self) -> int:
        """Memory held, in bytes."""
        return int(native.lib().vt_forms_n_bytes(self._handle))

    def find(self, tokens: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return the (n,) int32 ascending ids of other forms of tokens, without these tokens.

        Raises:
            TokenIdError: An id is outside the vocabulary.
        """
        ids = token_array(tokens)
        given = native.ffi.from_buffer("int32_t[]", ids)
        n = native.ffi.new("size_t *")
        found = np.empty(8 * ids.size, dtype=np.int32)  # four cases, with a space and without
        out = native.ffi.from_buffer("int32_t[]", found)
        native.call("vt_forms_find", self._handle, given, ids.size, out, found.size, n)
        return found[: n[0]]

    def close(self) -> None:
        """Free the table."""
        self._handle = native.ffi.NULL


class Tokenizer:
    """A store's vocabulary as the engine uses it: ids and pieces of text.

    Args:
        model: A `backend.Model` that is only a vocabulary; whoever made it closes it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.n_vocab = int(model.n_vocab())
        self.always_on = always_on(model.vocab)  # (n,) int32, ascending

    @property
    def vocab(self) -> Any:
        """The ctypes llama_vocab."""
        return self._model.vocab

    def piece(self, token: int) -> bytes:
        """Return the text of a token; special tokens have none."""
        buffer = ctypes.create_string_buffer(_MAX_PIECE)  # several threads may ask
        n = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(n, 0)]

    def common(self, n: int) -> npt.NDArray[np.int32]:
        """Return the first `n` ordinary tokens, or all of them, as (n,) int32 ascending ids.

        Ids follow the order in which a tokenizer was trained, so these are the frequent ones.
        """
        ids = np.empty(min(n, self.n_vocab), dtype=np.int32)
        found = native.ffi.new("size_t *")
        pointer = native.pointer("struct llama_vocab *", self.vocab)
        buffer = native.ffi.from_buffer("int32_t[]", ids)
        native.call("vt_vocab_common", pointer, buffer, ids.size, found)
        return ids[: found[0]]

    def is_end(self, token: int) -> bool:
        """Whether a token ends the generation."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    def pieces(self) -> list[bytes]:
        """Return the text of every token."""
        return [self.piece(token) for token in range(self.n_vocab)]
