"""One generation on a session: what it asks for, the steps it gives."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import SupersededError

if TYPE_CHECKING:
    from vocabtailor_gguf.runtime.session import Session


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a request chooses its tokens.

    Attributes:
        chain: A `backend.Sampler`, llama.cpp's sampler chain. Where a mode needs to take a decision
            back it works on a clone.
        bias: What is added to the logits of tokens; part of the chain already. Tokens that it
            raises join the active set.
        budget: Tokens that will be asked for at most, None where nobody knows.
    """

    chain: Any
    bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    budget: int | None = None


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


class Request:
    """A live generation; made by `Session.open`.

    Leaving it drops the rows that it added to the active set. Another request on the same session
    supersedes it: then it gives no more steps, and leaving it touches nothing.

    Attributes:
        sampling: How it chooses.
        n_missed: Tokens of the prompt that the static set lacked.
    """

    def __init__(
        self, session: Session, sampling: Sampling, prompt: npt.NDArray[np.int32], n_missed: int
    ) -> None:
        self.sampling = sampling
        self.prompt = prompt  # (n,) whose rows stay active while it lives
        self.n_missed = n_missed
        self.n_steps = 0
        self._session = session
        self._n_text = session.n_tokens  # where the text must be at the next step
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def left(self) -> int | None:
        """Tokens that may still be asked for, None where nobody knows."""
        budget = self.sampling.budget
        return None if budget is None else max(budget - self.n_steps, 0)

    def rebase(self) -> None:
        """Go on from where the text is now."""
        self._n_text = self._session.n_tokens

    @property
    def is_live(self) -> bool:
        """Whether it is the session's request."""
        return self._session.live_request is self

    def check(self) -> None:
        """Check that the text is where this request left it.

        Raises:
            SupersededError: It is not.
        """
        if not self.is_live:
            raise SupersededError("another request was opened on this text")
        if self._session.n_tokens != self._n_text:
            raise SupersededError("the text was changed while this request was waiting")

    def feed(self, tokens: npt.NDArray[np.int32]) -> None:
        """Decode (n,) tokens that the text goes on with.

        Raises:
            SupersededError: Another request was opened, or the text was changed.
            VocabTailorError: They do not fit into the context, or decoding failed.
        """
        with self._session.lock:
            self.check()
            self._session.feed(tokens)
            self._n_text = self._session.n_tokens

    def step(self) -> Step:
        """Choose the token that follows the text; it is not fed.

        Raises:
            SupersededError: Another request was opened, or the text was changed.
            VocabTailorError: The chain failed.
        """
        with self._session.lock:
            self.check()
            found = self._session.decide(self)
            self.n_steps += 1
            piece = self._session.engine.tokenizer.piece(found.token)
            return dataclasses.replace(found, text=self._decoder.decode(piece))

    def rest(self) -> str:
        """Return what stands for a last character that stayed incomplete."""
        return self._decoder.decode(b"", final=True)

    def close(self) -> None:
        """End it; twice is allowed."""
        with self._session.lock:
            if self.is_live:
                self._session.end(self)

    def __enter__(self) -> Request:
        """Return the request itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.close()
