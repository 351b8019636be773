"""Answers of llama_cpp.Llama as those of a server: one id, all choices, the usage."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from typing import Any

from vocabtailor_gguf.serve.plan import Plan
from vocabtailor_gguf.serve.work import Piece, Summary


@dataclasses.dataclass(frozen=True)
class Answer:
    """What all parts of an answer have in common.

    Attributes:
        model: The name that was asked for.
        plan: What was asked for.
        is_chat: Whether it is a chat completion.
        include_usage: Whether a stream tells the usage.
        id: Of the answer.
        created: In s since 1970.
    """

    model: str
    plan: Plan
    is_chat: bool
    include_usage: bool = False
    id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    def _head(self, *, chunk: bool = False) -> dict[str, Any]:
        kind = "text_completion"
        if self.is_chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        name = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.id}"
        return {"id": name, "object": kind, "created": self.created, "model": self.model}

    def _choice(self, choice: dict[str, Any], index: int) -> dict[str, Any]:
        """Return a choice with its index; of a chat, without more likely tokens than asked for.

        As in completions, ``llama_cpp.Llama`` adds the chosen one to them.
        """
        if self.is_chat and choice.get("logprobs"):
            for token in choice["logprobs"]["content"]:
                token["top_logprobs"] = token["top_logprobs"][: self.plan.n_top]
        return {**choice, "index": index}

    def _usage(self, summary: Summary) -> dict[str, int]:
        n_choices = len(self.plan.runs) // self.plan.n_prompts
        n_prompt = summary.n_prompt // n_choices  # a prompt of several choices counts once
        n = summary.n_tokens
        return {"prompt_tokens": n_prompt, "completion_tokens": n, "total_tokens": n_prompt + n}

    def whole(self, pieces: list[Piece], summary: Summary) -> dict[str, Any]:
        """Return the answer that is not a stream."""
        choices = [self._choice(p.value["choices"][0], p.index) for p in pieces]
        return {
            **self._head(),
            "choices": choices,
            "usage": self._usage(summary),
            "vocabtailor": summary.told(self.plan),
        }

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """Return a part of a stream."""
        choices = [self._choice(choice, piece.index) for choice in piece.value["choices"]]
        out = {**self._head(chunk=True), "choices": choices}
        return out | {"usage": None} if self.include_usage else out

    def last(self, summary: Summary) -> dict[str, Any]:
        """Return the part of a stream that tells the usage."""
        return {
            **self._head(chunk=True),
            "choices": [],
            "usage": self._usage(summary),
            "vocabtailor": summary.told(self.plan),
        }


def event(value: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


END = b"data: [DONE]\n\n"
