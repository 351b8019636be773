"""Conversations, in this process and through a pipe."""

from __future__ import annotations

import io
import sys

import pytest

from vocabtailor_gguf.chat.conversation import Conversation

GREEDY = {"temperature": 0.0, "max_tokens": 8}


def say(conversation: Conversation, text: str) -> str:
    """Return the reply to a text."""
    return "".join(conversation.reply(text))


def piped(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    """Let standard input be a pipe with a text."""
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
