"""One generation on a session."""

from __future__ import annotations

import codecs
import dataclasses
from types import TracebackType

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import SupersededError
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.runtime.steps import Sampling, Step


class Request:
    """A live generation.

    As in ``llama_cpp.Llama.generate``, what the text and the prompt begin with alike is kept.
    Leaving it drops the rows that it added to the active set. Another request on the same session
    supersedes it: then it gives no more steps, and leaving it touches nothing.

    Args:
        session: Whose text it goes on with; a live request of it is superseded.
        sampling: How it chooses.
        ids: (n,) token ids of the prompt, of `token_array`.
        reset: Begin a new text with the prompt; else the prompt follows the text.

    Attributes:
        sampling: How it chooses.
        n_steps: Steps given.

    Raises:
        TokenIdError: An id is outside the vocabulary; no request is superseded.
        VocabTailorError: The prompt does not fit into the context, or decoding failed.
    """

    def __init__(
        self,
        session: Session,
        sampling: Sampling,
        ids: npt.NDArray[np.int32],
        *,
        reset: bool = True,
    ) -> None:
        self.sampling = sampling
        self.n_steps = 0
        self._session = session
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with session.lock:
            session.begin(self, sampling, ids, reset=reset)
            self._n_text = session.n_tokens  # where the text must be at the next step

    @property
    def left(self) -> int | None:
        """Tokens that may still be asked for, None where nobody knows."""
        budget = self.sampling.budget
        return None if budget is None else max(budget - self.n_steps, 0)

    @property
    def is_live(self) -> bool:
        """Whether it is the session's request."""
        return self._session.holder is self

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
            found = self._session.decide(self.left)
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
                self._session.end()

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
