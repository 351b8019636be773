"""What a completion asks of its generation, beside llama_cpp.Llama's own arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import llama_cpp


class Asked(llama_cpp.LogitsProcessorList):  # type: ignore[misc]
    """Logits processors, a bias and a budget.

    ``llama_cpp.Llama`` hands its list of processors on to `generate` as it is; so this one arrives
    there with the completion's own wishes, and nothing of a request has to lie on the model.

    Args:
        processors: The user's.
        bias: What is added to the logits of tokens.
        budget: Tokens that will be asked for at most, None where nobody knows.
    """

    def __init__(
        self,
        processors: Iterable[Callable[..., Any]] = (),
        *,
        bias: Mapping[int, float] | None = None,
        budget: int | None = None,
    ) -> None:
        super().__init__(processors)
        self.bias = dict(bias or {})
        self.budget = budget

    @classmethod
    def of(cls, processors: Iterable[Callable[..., Any]] | None) -> Asked:
        """Return what a generation was given as its processors."""
        return processors if isinstance(processors, cls) else cls(processors or ())
