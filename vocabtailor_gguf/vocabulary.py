"""The tokens of a vocabulary: their texts, and which of them stay in every active set."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf import _native
from vocabtailor_gguf._llama_log import collect_log, reason
from vocabtailor_gguf.errors import BadFileError


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
    n = _native.ffi.new("size_t *")
    pointer = _native.pointer("struct llama_vocab *", vocab)
    _native.call("vt_vocab_always_on", pointer, _native.ffi.NULL, 0, n)
    ids = np.empty(n[0], dtype=np.int32)
    buffer = _native.ffi.from_buffer("int32_t[]", ids)
    _native.call("vt_vocab_always_on", pointer, buffer, ids.size, n)
    return ids


def token_pieces(tokenizer: llama_cpp.Llama) -> list[bytes]:
    """Return the text of every token as bytes; special tokens have none."""
    vocab = tokenizer._model.vocab
    buffer = ctypes.create_string_buffer(1024)
    pieces = []
    for token in range(tokenizer.n_vocab()):
        n = llama_cpp.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, False)
        pieces.append(buffer.raw[: max(n, 0)])
    return pieces
