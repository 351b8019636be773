"""What a request asks for, and what it gives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a request chooses its tokens.

    Attributes:
        chain: A `backend.Sampler`, llama.cpp's sampler chain. Where a mode needs to take a decision
            back it works on a clone.
        bias: What is added to the logits of tokens; part of the chain already. Tokens that it
            raises join the active set.
        budget: Tokens that will be asked for at most, None where nobody knows.
        first_scored: The first position from which on hidden states of all tokens are needed, None
            where nobody asks for probabilities.
    """

    chain: Any
    bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    budget: int | None = None
    first_scored: int | None = None

    @functools.cached_property
    def raised(self) -> npt.NDArray[np.int32]:
        """The (n,) int32 ids of the tokens that the bias raises."""
        return np.array([t for t, b in self.bias.items() if b > 0], dtype=np.int32)


@dataclasses.dataclass(frozen=True)
class Step:
    """One token of a request.

    Attributes:
        token: Its id.
        text: What it adds to the text: nothing yet where a character needs more tokens.
        logprobs: Of this token and the likeliest others; None where nobody asked.
        from_draft: Whether it was drafted with the active set before it was proved.
    """

    token: int
    text: str = ""
    logprobs: Mapping[int, float] | None = None
    from_draft: bool = False
