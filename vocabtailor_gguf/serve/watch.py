"""What a request is watched by while it generates, and a model that lets itself be watched."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Sequence
from typing import Any

import llama_cpp

from vocabtailor_gguf.llama import TailoredLlama

_MORE = 64  # tokens beyond max_tokens, which a character's last bytes may need; three, in a text


class Watch(llama_cpp.StoppingCriteriaList):  # type: ignore[misc]
    """Counts the tokens of a request, and stops it when its client has gone or it has no end.

    ``llama_cpp.Llama`` does not look at ``max_tokens`` as long as the last bytes may become a
    character, and while bytes are no text it tries all their beginnings at each token of a stream,
    which takes the cube of their number.

    ``llama_cpp.Llama`` hands stopping criteria on to `generate` as they are; so this arrives there
    with the request, and nothing of a request has to lie on the model.

    Args:
        most_held: Tokens without text after which a stream ends, None for no limit.

    Attributes:
        n_prompt: Tokens of prompts, of which some may have been known already.
        n_tokens: Tokens given, without those that end a text.
        head_rows: Rows of the active set at the last token.
        began: When the work began, in s of ``time.perf_counter``.
        first: When the first token came; None before.
        last: When the last token came.
        was_cut: Whether the generation had no end.
    """

    def __init__(self, most_held: int | None = None) -> None:
        super().__init__()
        self._most_held = most_held
        self._n_held = 0  # tokens since there was text
        self._left: int | None = None
        self.was_cut = False
        self.n_prompt = 0
        self.n_tokens = 0
        self.head_rows = 0
        self.began = time.perf_counter()
        self.first: float | None = None
        self.last = self.began
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop the work at its next token; from any thread."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the rest."""
        return self._cancelled.is_set()

    def __call__(self, input_ids: Any, logits: Any) -> bool:
        """Return whether to stop."""
        return self.cancelled or self.was_cut or bool(super().__call__(input_ids, logits))

    def begin(self, max_tokens: int | None) -> None:
        """Note that a generation begins, and of how many tokens at most."""
        self._left = None if max_tokens is None else max_tokens + _MORE
        self._n_held = 0
        self.was_cut = False

    def limit(self, room: int) -> None:
        """Note that the generation has room for so many tokens."""
        self._left = room if self._left is None else min(self._left, room)

    def cut(self) -> bool:
        """Return whether no more token may come, and note that."""
        held = self._most_held is not None and self._n_held > self._most_held
        self.was_cut = held or self._left == 0
        return self.was_cut

    def note(self, is_end: bool) -> None:
        """Count a token."""
        self.last = time.perf_counter()
        if self.first is None:
            self.first = self.last
        self.n_tokens += not is_end
        self._n_held += 1
        if self._left is not None:
            self._left -= 1

    def told(self) -> None:
        """Note that text was given."""
        self._n_held = 0

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token, 0 where there was no second one."""
        if self.first is None or self.n_tokens < 2 or self.last == self.first:
            return 0.0
        return (self.n_tokens - 1) / (self.last - self.first)


class WatchedLlama(TailoredLlama):
    """A `TailoredLlama` whose generations tell a `Watch` of their tokens."""

    def generate(
        self,
        tokens: Sequence[int],
        *args: Any,
        stopping_criteria: llama_cpp.StoppingCriteriaList | None = None,
        **kwargs: Any,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Yield tokens after a prompt; arguments as in `TailoredLlama.generate`."""
        stream = super().generate(tokens, *args, stopping_criteria=stopping_criteria, **kwargs)
        if isinstance(stopping_criteria, Watch):
            return self._watched(stream, len(tokens), stopping_criteria)
        return stream

    def _watched(
        self, stream: Generator[int, Any, None], n_prompt: int, watch: Watch
    ) -> Generator[int, Any, None]:
        watch.n_prompt += n_prompt
        watch.limit(self.n_ctx() - n_prompt)
        is_end = self._engine.tokenizer.is_end
        with contextlib.closing(stream):
            for token in stream:
                if watch.cut():
                    return
                watch.head_rows = self._text.head.n_rows
                watch.note(is_end(token))
                yield token


class View:
    """A model as one request has it: its completions are watched.

    Args:
        llm: The model.
        watch: What watches them.
    """

    def __init__(self, llm: TailoredLlama, watch: Watch) -> None:
        self._llm = llm
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        """Return what the model has."""
        return getattr(self._llm, name)

    def create_chat_completion(self, **kwargs: Any) -> Any:
        """Answer a chat as ``llama_cpp.Llama`` does, whose function sees this as its model."""
        out = llama_cpp.Llama.create_chat_completion(self, **kwargs)
        return self._llm.with_over(out)

    def create_completion(
        self,
        *args: Any,
        max_tokens: int | None = None,
        stopping_criteria: llama_cpp.StoppingCriteriaList | None = None,
        **kwargs: Any,
    ) -> Any:
        """Complete as ``llama_cpp.Llama`` does."""
        self._watch[:] = stopping_criteria or ()
        self._watch.begin(max_tokens)
        out = self._llm.create_completion(
            *args, max_tokens=max_tokens, stopping_criteria=self._watch, **kwargs
        )
        if isinstance(out, dict):
            return self._reasoned(out)
        return (self._reasoned(part) for part in out)

    def _reasoned(self, part: Any) -> Any:
        """Return an answer, or a chunk, that says why it ends where it was cut."""
        choice = part["choices"][0]
        if self._watch.was_cut and choice["finish_reason"]:
            choice["finish_reason"] = "length"
        return part
