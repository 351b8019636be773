"""What a completion asks of its generation, beside llama_cpp.Llama's own arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.runtime.logprobs import Record
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.runtime.steps import Sampling


class Asked(llama_cpp.LogitsProcessorList):  # type: ignore[misc]
    """Logits processors, a bias, a budget and a record of log-probabilities.

    ``llama_cpp.Llama`` hands its list of processors on to `generate` as it is; so this one arrives
    there with the completion's own wishes, and nothing of a request has to lie on the model.

    Args:
        processors: The user's.
        bias: What is added to the logits of tokens.
        budget: Tokens that will be asked for at most, None where nobody knows.
        record: Of the log-probabilities, None where nobody asks for them.
    """

    def __init__(
        self,
        processors: Iterable[Callable[..., Any]] = (),
        *,
        bias: Mapping[int, float] | None = None,
        budget: int | None = None,
        record: Record | None = None,
    ) -> None:
        super().__init__(processors)
        self.bias = dict(bias or {})
        self.budget = budget
        self.record = record

    def sampling(self, chain: Any, prompt: npt.NDArray[np.int32]) -> Sampling:
        """Return how a request with a `backend.Sampler` chooses after a prompt."""
        first = None if self.record is None else self.record.first(prompt)
        return Sampling(chain, self.bias, self.budget, first)

    def follow(
        self, session: Session, prompt: npt.NDArray[np.int32]
    ) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Follow the live request of a session; entered, it gives what notes each token."""
        if self.record is None:
            return contextlib.nullcontext(lambda token: None)
        return self.record.follow(session, prompt)

    @classmethod
    def of(cls, processors: Iterable[Callable[..., Any]] | None) -> Asked:
        """Return what a generation was given as its processors."""
        return processors if isinstance(processors, cls) else cls(processors or ())
