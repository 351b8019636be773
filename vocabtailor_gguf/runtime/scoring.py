"""Logits and log-probabilities of a text: a part of TailoredLlama."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import token_array
from vocabtailor_gguf.runtime.logprobs import Told, say_over
from vocabtailor_gguf.runtime.owner import SessionOwner
from vocabtailor_gguf.runtime.score import Score, score_continuations, score_text
from vocabtailor_gguf.runtime.scores import Scores
from vocabtailor_gguf.runtime.states import Over, logits, output_logits


class Scoring(SessionOwner):
    """Last logits, scores, log-probabilities."""

    _over: Over  # what probabilities add up to one over
    _logits_all: bool
    n_batch: int
    context_params: Any

    def last_logits(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return ids (K,) and logits (K,) of the last position, in the order of `active_ids`.

        Raises:
            VocabTailorError: Nothing has been decoded yet.
        """
        return self._text.last_logits()

    @property
    def scores(self) -> Scores:
        """The (n_ctx or n_batch, n_vocab) float32 logits, computed where they are read.

        There are those of the last token, and with ``logits_all=True`` of all; in full and exact
        mode bit for bit stock's, in tailored mode -inf outside the active set.
        """
        if self._session is None:
            return Scores(lambda at: np.empty((at.size, 0), np.float32), np.arange(0), 0)
        asked = int(self.context_params.n_ctx)  # llama.cpp rounds it up
        return self._scores_of(asked if self._logits_all else self.n_batch)

    @scores.setter
    def scores(self, array: npt.NDArray[np.float32]) -> None:
        """Nothing: ``llama_cpp.Llama`` makes an array here, of which no page is ever touched."""

    @property
    def _scores(self) -> Scores:
        return self._scores_of(self._text.n_tokens)

    def _scores_of(self, n: int) -> Scores:
        text = self._text
        return Scores(
            lambda at: logits(text, at, self._decided_over), np.arange(n), self.store.n_vocab
        )

    @property
    def eval_logits(self) -> collections.deque[list[float]]:
        """The logits of the text, with ``logits_all=False`` those of the last token only."""
        n = self._text.n_ctx if self._logits_all else 1
        return collections.deque((row.tolist() for row in self._scores[-n:]), maxlen=n)

    @property
    def _decided_over(self) -> Over:
        return "active set" if self._mode == "tailored" else "vocabulary"

    def _rows(self, tokens: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Return the (n, n_vocab) logits of tokens of the last batch that are outputs.

        Raises:
            VocabTailorError: They are gone.
        """
        text, over = self._text, self._decided_over
        with text.lock:
            if text.n_fed:
                return logits(text, text.n_tokens - text.n_fed + tokens, over)
            return output_logits(text, np.searchsorted(text.outputs, tokens), over)

    def score(
        self,
        text_or_tokens: str | bytes | Sequence[int],
        top: int = 0,
        *,
        over: Over | None = None,
    ) -> Score:
        """Return the log-probability of each token of a text, which becomes the model's text.

        Memory does not grow with the vocabulary times the length.

        Args:
            text_or_tokens: A text, tokenised as a prompt is, or (n,) token ids.
            top: How many of the likeliest tokens to return for each.
            over: What probabilities add up to one over: ``"vocabulary"`` or ``"active set"``; by
                default the vocabulary, in mode ``"tailored"`` the model's ``logprobs_over``.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            VocabTailorError: The text is longer than the context.

        Example:
            >>> llm = TailoredLlama(CORE, n_ctx=64, verbose=False)
            >>> llm.score("Rome is old").logprobs[1:].max() < 0
            np.True_
            >>> llm.close()
        """
        return score_text(self._text, self._ids_of(text_or_tokens), over or self._over, top=top)

    def score_continuations(
        self,
        context: str | bytes | Sequence[int],
        continuations: Sequence[str | bytes | Sequence[int]],
        top: int = 0,
        *,
        over: Over | None = None,
    ) -> tuple[Score, ...]:
        """Score several continuations of one context, which is decoded once; see `score`.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            VocabTailorError: A text is longer than the context, or the context is empty.

        Example:
            >>> llm = TailoredLlama(CORE, n_ctx=64, verbose=False)
            >>> found = llm.score_continuations("Rome is", [" a city", " a river"])
            >>> best = max(found, key=lambda score: score.total)
            >>> llm.close()
        """
        ids = [self._ids_of(c, add_bos=False) for c in continuations]
        return score_continuations(
            self._text, self._ids_of(context), ids, over or self._over, top=top
        )

    def _ids_of(
        self, text: str | bytes | Sequence[int], *, add_bos: bool = True
    ) -> npt.NDArray[np.int32]:
        if isinstance(text, str | bytes):
            raw = text.encode("utf-8") if isinstance(text, str) else text
            return token_array(self.tokenize(raw, add_bos=add_bos, special=True))
        return token_array(text)

    # ---- of completions ----

    def _told(self, n_top: int, prompt: Any, kwargs: dict[str, Any]) -> Told:
        """Return what adds log-probabilities to a completion with these arguments."""
        return Told(
            self,
            kwargs.get("prompt", prompt),
            n_top=n_top,
            echo=kwargs.get("echo", False),
            stream=kwargs.get("stream", False),
            stop=kwargs.get("stop") or [],
            over=self._over,
            says_over=self._mode == "tailored",
        )

    def create_chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        """As ``llama_cpp.Llama.create_chat_completion``; tailored mode says which probabilities."""
        upstream: Any = super()
        return self.with_over(upstream.create_chat_completion(*args, **kwargs))

    def with_over(self, out: dict[str, Any] | Iterator[Any]) -> Any:
        """Return a response, or its chunks, that say in tailored mode which probabilities."""
        return say_over(out, self._over) if self._mode == "tailored" else out
