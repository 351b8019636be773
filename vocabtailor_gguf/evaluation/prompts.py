"""Prompts as token ids: examples before them, a chat template around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.chat import CHAT_TEMPLATE, chat_formatter, render
from vocabtailor_gguf.evaluation.rows import Row, digest
from vocabtailor_gguf.evaluation.tasks import EvalTask, Style

_UNKNOWN = "tokenizer.ggml.unknown_token_id"


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        row: The row it is of.
        tokens: Its ids.
        n_shots: Examples in it.
        n_shared: Ids at its beginning that every prompt with these examples has, fewer than all.
    """

    row: Row
    tokens: tuple[int, ...]
    n_shots: int
    n_shared: int

    @property
    def key(self) -> str:
        """What stands for its content."""
        return digest(list(self.tokens), self.row.fields, self.row.tests)


def style_of(tokenizer: Any) -> Style:
    """Return ``"chat"`` for a tokenizer with a chat template, else ``"base"``."""
    return "chat" if CHAT_TEMPLATE in tokenizer.metadata else "base"


class Prompter:
    """Makes prompts.

    Args:
        tokenizer: A ``llama_cpp.Llama`` of the store.
        task: Fields and templates.
        style: Whether examples precede the prompt as text, or as turns of a chat.
        shots: Examples, fewer of which are taken where a prompt would not fit.
        n_ctx: Tokens of the context.

    Raises:
        BadFileError: The model's chat template cannot be read.
        VocabTailorError: The model has none.
    """

    def __init__(
        self, tokenizer: Any, task: EvalTask, style: Style, shots: Sequence[Row], n_ctx: int
    ) -> None:
        self._tokenizer = tokenizer
        self._task = task
        self._style: Style = style
        self._empty: dict[int, list[int]] = {}  # prompts of an empty row, by number of examples
        self._template = task.form(style).template
        self._shots = list(shots)
        self._room = n_ctx - task.max_tokens
        self._chat = chat_formatter(tokenizer) if style == "chat" else None

    def prompt(self, row: Row) -> Prompt:
        """Return the prompt of a row.

        Raises:
            VocabTailorError: It does not fit even without examples.
        """
        for n_shots in range(len(self._shots), -1, -1):
            tokens = self._tokens(self._text(row, self._shots[:n_shots]))
            if len(tokens) <= self._room:
                return Prompt(row, tuple(tokens), n_shots, self._n_shared(tokens, n_shots))
        raise VocabTailorError(
            f"task {self._task.name}: row {row.number}: {len(tokens)} tokens and "
            f"{self._task.max_tokens} of the answer; raise -c"
        )

    def profiled(self, row: Row) -> tuple[str, str]:
        """Return a training row's prompt and output, as texts to profile a token set from."""
        prompt, answer = self._template.prompt(row.fields), self._template.answer(row.fields)
        return (prompt, answer) if self._chat is None else (prompt.rstrip(), answer.strip())

    def whole(self, row: Row) -> str:
        """Return a training row as one text, with all that surrounds it in a prompt."""
        return self._text(row, []) + self.profiled(row)[1]

    def _text(self, row: Row, shots: Sequence[Row]) -> str:
        if self._chat is None:
            before = "".join("".join(self.profiled(s)) for s in shots)
            return before + self._template.prompt(row.fields)
        messages: list[Any] = []
        for shot in shots:
            prompt, answer = self.profiled(shot)
            messages.append({"role": "user", "content": prompt})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": self.profiled(row)[0]})
        return render(self._chat, messages)

    def _n_shared(self, tokens: Sequence[int], n_shots: int) -> int:
        """Return how far a prompt goes like that of a row whose fields are empty."""
        if n_shots not in self._empty:
            nothing = Row(0, dict.fromkeys(self._task.fields(self._style), ""))
            self._empty[n_shots] = self._tokens(self._text(nothing, self._shots[:n_shots]))
        same = 0
        for a, b in zip(tokens[:-1], self._empty[n_shots], strict=False):
            if a != b:
                break
            same += 1
        return same

    def _tokens(self, text: str) -> list[int]:
        is_chat = self._chat is not None  # whose template writes the special tokens
        found: list[int] = self._tokenizer.tokenize(
            text.encode("utf-8"), add_bos=not is_chat, special=is_chat
        )
        return found


def prune(prompt: Prompt, kept: npt.NDArray[np.int32], unknown: int | None) -> Prompt:
    """Return a prompt as a model sees it whose vocabulary was cut to the ids `kept`.

    Other tokens become the unknown token, or nothing where the vocabulary has none.
    """
    inside = np.isin(np.array(prompt.tokens, dtype=np.int32), kept).tolist()
    seen = [t if known else unknown for t, known in zip(prompt.tokens, inside, strict=True)]
    shared = [t for t in seen[: prompt.n_shared] if t is not None]
    rest = [t for t in seen[prompt.n_shared :] if t is not None]
    n_shared = len(shared) if rest else max(len(shared) - 1, 0)
    return dataclasses.replace(prompt, tokens=(*shared, *rest), n_shared=n_shared)


def unknown_token(tokenizer: Any) -> int | None:
    """Return the id of a vocabulary's unknown token, None where it has none."""
    found = tokenizer.metadata.get(_UNKNOWN)
    return None if found is None else int(found)
