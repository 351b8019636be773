"""Logits and log-probabilities of a text: a part of TailoredLlama."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import token_array
from vocabtailor_gguf.runtime.facts import last_row
from vocabtailor_gguf.runtime.owner import SessionOwner
from vocabtailor_gguf.runtime.score import Over, Score, score_continuations, score_text
from vocabtailor_gguf.runtime.scores import LastPosition, LazyScores


class Scoring(SessionOwner):
    """Last logits, scores, log-probabilities."""

    def last_logits(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return ids (K,) and logits (K,) of the last position, in the order of `active_ids`.

        Raises:
            VocabTailorError: Nothing has been decoded yet.
        """
        return self._text.last_logits()

    @property
    def _scores(self) -> LastPosition:
        return LastPosition(LazyScores(self.store.n_vocab, self._text.last_scores))

    def _last_row(self) -> npt.NDArray[np.float32]:
        """Return the (n_vocab,) logits of the last position; tailored mode has -inf elsewhere."""
        return last_row(self.store.n_vocab, self._text.last_scores)

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
                default the vocabulary, in mode ``"tailored"`` the active set.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            VocabTailorError: The text is longer than the context.

        Example:
            >>> llm = TailoredLlama(CORE, n_ctx=64, verbose=False)
            >>> llm.score("Rome is old").logprobs[1:].max() < 0
            np.True_
            >>> llm.close()
        """
        return score_text(
            self._text,
            self._ids_of(text_or_tokens),
            top=top,
            over=over or self._over,
            n_threads=self.context_params.n_threads_batch,
        )

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
        """
        return score_continuations(
            self._text,
            self._ids_of(context),
            [self._ids_of(c, add_bos=False) for c in continuations],
            top=top,
            over=over or self._over,
            n_threads=self.context_params.n_threads_batch,
        )

    @property
    def _over(self) -> Over:
        return "active set" if self._mode == "tailored" else "vocabulary"

    def _ids_of(
        self, text: str | bytes | Sequence[int], *, add_bos: bool = True
    ) -> npt.NDArray[np.int32]:
        if isinstance(text, str | bytes):
            raw = text.encode("utf-8") if isinstance(text, str) else text
            return token_array(self.tokenize(raw, add_bos=add_bos, special=True))
        return token_array(text)
