"""Logits processors: Python functions that see a row of logits by token id."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.runtime import backend

logger = logging.getLogger(__name__)

Row = npt.NDArray[np.single]  # (n_vocab,)
Processor = Callable[[npt.NDArray[np.intc], Row], Row]

_CANDIDATE = np.dtype([("id", np.intc), ("logit", np.single), ("p", np.single)], align=True)


def bias_of(asked: Mapping[Any, Any], n_vocab: int) -> dict[int, float]:
    """Return what a bias adds to the logits of tokens, as ``llama_cpp.Llama`` has it.

    Negative ids count from the end. One that is out of range makes the whole bias void; there it
    raises in a callback that cannot hand the error on.
    """
    bias = {int(token): float(value) for token, value in asked.items()}
    bad = [token for token in bias if not -n_vocab <= token < n_vocab]
    if bad:
        logger.warning(
            "logit_bias: no bias: id %d, expected up to %d; llama_cpp.Llama ignores it as well",
            bad[0],
            n_vocab - 1,
        )
        return {}
    return {token % n_vocab: value for token, value in bias.items()}


def bias_processor(bias: Mapping[int, float]) -> Processor:
    """Return a processor that adds to the logits of some tokens."""
    ids = np.array(list(bias), dtype=np.intp)
    values = np.array(list(bias.values()), dtype=np.single)

    def add(input_ids: npt.NDArray[np.intc], scores: Row) -> Row:
        found = np.copy(scores)
        found[ids] += values
        return found

    return add


def processed(
    chain: Any,
    processors: Iterable[Processor],
    text: Callable[[], npt.NDArray[np.intc]],
    n_vocab: int,
) -> Any:
    """Return a chain that lets processors change the logits first, then goes on as `chain`.

    Candidates need not be the whole vocabulary, nor in order: tokens that are none have the logit
    -inf in the row, and what a processor gives them is lost.

    Args:
        chain: A `backend.Sampler`; its samplers move to the new chain.
        processors: They see the text's ids (n,) and a (n_vocab,) float32 row, and return one.
        text: Returns the ids of the text.
        n_vocab: Tokens of the vocabulary.
    """
    chosen = list(processors)

    def apply(candidates: Any) -> None:
        data = candidates.contents
        buffer = (llama_cpp.llama_token_data * data.size).from_address(
            ctypes.addressof(data.data.contents)
        )
        found = np.frombuffer(buffer, dtype=_CANDIDATE)
        row = np.full(n_vocab, -np.inf, dtype=np.single)
        row[found["id"]] = found["logit"]
        for processor in chosen:
            row = np.asarray(processor(text(), row), dtype=np.single)
        found["logit"] = row[found["id"]]

    out = backend.Sampler()
    out.add_custom(apply)
    return backend.move_samplers(chain, out)
