"""The steps of a request, one after another, with what they took."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.runtime.request import Request
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.runtime.steps import Sampling, Step


@dataclasses.dataclass(frozen=True)
class Timings:
    """What a generation took so far.

    Attributes:
        n_prompt: Tokens of the prompt.
        prompt_ms: From the start to the first token, in ms.
        n_tokens: Tokens given.
        ms: From the first token to the last, in ms.
    """

    n_prompt: int
    prompt_ms: float
    n_tokens: int
    ms: float

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token, 0 where there was no second one."""
        return 1e3 * (self.n_tokens - 1) / self.ms if self.n_tokens > 1 and self.ms else 0.0


class Stream:
    """An iterator of steps that ends at an end-of-generation token or at the budget.

    Args:
        session: Whose text the prompt begins.
        sampling: How it chooses; without a budget it goes on to the end of the context.
        prompt: (n,) token ids, of `token_array`.

    Attributes:
        rest: Where the last character stayed incomplete, what stands for it; known at the end.

    Raises:
        SupersededError: Another request was opened, or the text was changed.
        VocabTailorError: The prompt does not fit into the context, or decoding failed.
    """

    def __init__(self, session: Session, sampling: Sampling, prompt: npt.NDArray[np.int32]) -> None:
        self._n_prompt = int(prompt.size)
        self._n_tokens = 0
        self.rest = ""
        self._began = time.perf_counter()
        self._first = self._last = self._began
        self._steps = self._run(session, sampling, prompt)

    def _run(
        self, session: Session, sampling: Sampling, prompt: npt.NDArray[np.int32]
    ) -> Generator[Step, None, None]:
        room = session.n_ctx - prompt.size
        budget = room if sampling.budget is None else min(sampling.budget, room)
        if budget < 1:
            return
        with Request(session, dataclasses.replace(sampling, budget=budget), prompt) as request:
            while True:
                step = request.step()
                if session.engine.tokenizer.is_end(step.token):
                    break
                self._last = time.perf_counter()
                self._first = self._last if self._n_tokens == 0 else self._first
                self._n_tokens += 1
                yield step
                if self._n_tokens == budget:
                    break
                request.feed(np.array([step.token], dtype=np.int32))
            self.rest = request.rest()

    def __iter__(self) -> Stream:
        """Return the stream itself."""
        return self

    def __next__(self) -> Step:
        """Return the next step."""
        return next(self._steps)

    def close(self) -> None:
        """End it before its time; twice is allowed."""
        self._steps.close()

    @property
    def timings(self) -> Timings:
        """What it took so far."""
        return Timings(
            n_prompt=self._n_prompt,
            prompt_ms=1e3 * (self._first - self._began),
            n_tokens=self._n_tokens,
            ms=1e3 * (self._last - self._first),
        )
