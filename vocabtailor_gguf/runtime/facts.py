"""A core and a vocabulary that look like the one model they came from."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.runtime import backend, rawcalls
from vocabtailor_gguf.runtime.session import Session

_OURS = "vocabtailor."
_OF_VOCABULARY = frozenset(
    {"vocab", "vocab_type", "n_vocab", "add_bos_token", "add_eos_token", "detokenize"}
)
_FLOATS = ctypes.POINTER(ctypes.c_float)


def split_keys(metadata: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the keys of others, and this package's own."""
    ours = {k: v for k, v in metadata.items() if k.startswith(_OURS)}
    return {k: v for k, v in metadata.items() if k not in ours}, ours


class SplitModel:
    """Stands for llama.cpp's model of the unsplit file.

    Text is the store's matter, everything else the core's: ``model`` is its llama_model, so what
    llama.cpp tells about layers, heads and context is right. Parameters and bytes are those of all
    tensors of the source.

    Args:
        vocabulary: A `backend.Model` that is only a vocabulary.
        core: The `backend.Model` of the core.
        headers: Of the core and the store.
    """

    def __init__(self, vocabulary: Any, core: Any, headers: tuple[GGUFHeader, GGUFHeader]) -> None:
        self._vocabulary = vocabulary
        self._core = core
        of_store = headers[1].tensors
        tensors = [
            *of_store.values(),
            *(t for t in headers[0].tensors.values() if t.name not in of_store),
        ]
        self._n_params = sum(int(np.prod(t.ne, dtype=np.int64)) for t in tensors)
        self._size = sum(t.n_bytes for t in tensors)
        try:
            found = {**core.metadata(), **vocabulary.metadata()}
        except UnicodeDecodeError:
            found = {}  # as llama_cpp.Llama has it
        theirs, self.split_metadata = split_keys(found)
        order = headers[1].get(f"{_OURS}source.key_order", [])
        self._metadata = {k: theirs[k] for k in order if k in theirs}
        self._pointer = core.model
        rawcalls.answer_for(self._pointer, self)

    def __getattr__(self, name: str) -> Any:
        """Return what the vocabulary knows of text, and the core of the rest."""
        of_text = name in _OF_VOCABULARY or name.startswith("token_")
        return getattr(self._vocabulary if of_text else self._core, name)

    def tokenize(self, text: bytes, add_bos: bool, special: bool) -> list[int]:
        """Return the ids of a text, in one pass: the context that it fits in is the core's."""
        tokens: list[int] = backend.Model.tokenize(self, text, add_bos, special)
        return tokens

    def n_params(self) -> int:
        """Return the parameters of the source."""
        return self._n_params

    def size(self) -> int:
        """Return the bytes of the source's tensors, as they are stored now."""
        return self._size

    def metadata(self) -> dict[str, str]:
        """Return the source's keys, as llama.cpp shows them."""
        return dict(self._metadata)

    def close(self) -> None:
        """Let whoever still has this, such as a tokenizer, get an error."""
        rawcalls.forget(self._pointer)
        self._vocabulary = self._core = Closed()


class Closed:
    """Stands where something was before the model was closed."""

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse.

        Raises:
            VocabTailorError: Always.
        """
        raise VocabTailorError("the model is closed")


class SplitContext:
    """A core's context whose logits are the whole vocabulary's, through llama.cpp's functions too.

    Args:
        context: A `backend.Context` of the core.
        rows: Returns the (n, n_vocab) float32 logits of (n,) tokens of the last batch.
        session: Of the context.
    """

    def __init__(
        self,
        context: Any,
        rows: Callable[[npt.NDArray[np.intp]], npt.NDArray[np.float32]],
        session: Session,
    ) -> None:
        self._context = context
        self._rows = rows
        self._session = session
        self._kept: npt.NDArray[np.float32] | None = None  # what a pointer points to
        self._address = context.ctx
        rawcalls.answer_for(self._address, self)

    def __getattr__(self, name: str) -> Any:
        """Return what the context has."""
        return getattr(self._context, name)

    def decode(self, batch: Any) -> None:
        """Decode a `backend.Batch` of token ids.

        Raises:
            VocabTailorError: llama.cpp does not take it.
        """
        self._session.decode_batch(batch.batch)

    def all_logits(self) -> Any:
        """Return a pointer to the (n_outputs, n_vocab) logits of the last batch, in its order.

        The next call ends it.

        Raises:
            VocabTailorError: There is no batch.
        """
        if not self._session.outputs.size:
            raise VocabTailorError("nothing has been decoded yet")
        return self._point_to(self._session.outputs)

    def logits_of(self, i: int) -> Any:
        """Return a pointer to the logits of token `i` of the last batch, below 0 of an output.

        Raises:
            VocabTailorError: The token is no output.
        """
        outputs = self._session.outputs
        found = outputs[i : i + 1 or None] if i < 0 else outputs[outputs == i]
        if not found.size:
            raise VocabTailorError(
                f"logits of output {i}: only the last output's are kept"
                if outputs.size == 1
                else f"logits of output {i}: the last batch has {outputs.size}"
            )
        return self._point_to(found)

    def _point_to(self, tokens: npt.NDArray[np.intp]) -> Any:
        self._kept = np.ascontiguousarray(self._rows(tokens), dtype=np.float32)
        return self._kept.ctypes.data_as(_FLOATS)

    def close(self) -> None:
        """Let whoever still has this get an error."""
        rawcalls.forget(self._address)
        self._context = Closed()
