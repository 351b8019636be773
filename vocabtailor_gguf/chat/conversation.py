"""A conversation: its messages, and replies in the model's own chat template."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jinja2

from vocabtailor_gguf.chat import saved
from vocabtailor_gguf.chat.saved import Message
from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama

_MAX_SEED = 2**32 - 1  # which stands for a random one


class Conversation:
    """Messages, of which the last is the user's or the reply to it.

    What was said so far stays in the KV cache, so a reply decodes the new message only.

    Args:
        llm: The model; it may be changed for another one between replies.
        name: What errors call the model; by default the path of its core.
        system: The system prompt; by default that of the template, if any.
        seed: Of all replies, -1 for random ones.
        sampling: Arguments of ``llama_cpp.Llama.create_chat_completion``.

    Attributes:
        llm: The model.
        messages: What was said, with the system prompt in front.
        was_cut: Whether the last reply filled the context before it ended.
        n_tokens: Of the last reply, those after its first piece.
        seconds: From that piece to the last one.

    Raises:
        UnsupportedError: The model has no chat template.
    """

    def __init__(
        self,
        llm: TailoredLlama,
        *,
        name: str | None = None,
        system: str | None = None,
        seed: int = -1,
        sampling: dict[str, Any] | None = None,
    ) -> None:
        check_template(llm, name or llm.model_path)
        self.llm = llm
        self.system = system
        self.messages: list[Message] = []
        self.was_cut = False
        self.n_tokens = 0
        self.seconds = 0.0
        self._seed = random.SystemRandom().randrange(_MAX_SEED) if seed == -1 else seed % 2**32
        self._n_replies = 0
        self._sampling = dict(sampling or {})
        self.reset()

    def reset(self) -> None:
        """Forget what was said, but for the system prompt."""
        self.llm.reset()
        self.messages = []
        if self.system is not None:
            self.messages.append({"role": "system", "content": self.system})

    def reply(self, text: str) -> Generator[str, None, None]:
        """Yield the pieces of the reply to a message.

        A reply that is broken off, by closing this iterator, is kept as far as it came; where
        nothing came, or it fails, the message is forgotten too.

        Raises:
            VocabTailorError: The conversation does not fit into the context, or the template
                does not take it.
        """
        before = len(self.messages)
        self.messages.append({"role": "user", "content": text})
        pieces: list[str] = []
        self.was_cut, self.n_tokens, self.seconds = False, 0, 0.0
        began, n_before = 0.0, 0
        is_whole = False
        try:
            with contextlib.closing(self._chunks()) as chunks:
                for chunk in chunks:
                    choice = chunk["choices"][0]
                    self.was_cut = choice["finish_reason"] == "length"
                    piece = choice["delta"].get("content")
                    if not piece:
                        continue
                    if not pieces:
                        began, n_before = time.perf_counter(), self.llm.n_tokens
                    self.n_tokens = self.llm.n_tokens - n_before
                    self.seconds = time.perf_counter() - began
                    pieces.append(piece)
                    yield piece
            is_whole = True
        finally:
            if pieces or is_whole:
                self.messages.append({"role": "assistant", "content": "".join(pieces)})
            else:
                del self.messages[before:]

    def _chunks(self) -> Generator[Any, None, None]:
        seed = random.Random(f"{self._seed} {self._n_replies}").randrange(_MAX_SEED)
        self._n_replies += 1
        try:
            yield from self.llm.create_chat_completion(
                messages=self.messages, stream=True, seed=seed, **self._sampling
            )
        except jinja2.TemplateError as e:
            raise VocabTailorError(f"the chat template does not take this conversation: {e}") from e
        except VocabTailorError:
            raise
        except ValueError as e:  # llama_cpp's, or the template's own words
            if "context window" not in str(e):
                raise VocabTailorError(f"the conversation cannot go on: {e}") from e
            raise VocabTailorError(
                f"the conversation is longer than the context of {self.llm.n_ctx()} tokens: "
                "/reset begins a new one, -c N makes room for more"
            ) from e

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the messages as JSON, and beside them ``PATH.state``; see `chat.saved`.

        Raises:
            BadFileError: A file cannot be written.
        """
        said = saved.Saved(self.messages, self._seed, self._n_replies)
        saved.write(Path(path), said, self.llm)

    def load(self, path: str | os.PathLike[str]) -> str | None:
        """Go on with a saved conversation; a refused file changes nothing.

        With the same model and options replies have the bits that they would have had without the
        interruption. Where the state is not there, or not this model's, the messages are decoded
        again, and last bits may differ.

        Returns:
            Why the messages are decoded again, None where they are not.

        Raises:
            BadFileError: The file cannot be read or is malformed.
        """
        found = saved.read(Path(path))
        self.messages = found.messages
        first = self.messages[0] if self.messages else {"role": ""}
        self.system = first["content"] if first["role"] == "system" else None
        if found.seed is not None:
            self._seed, self._n_replies = found.seed, found.n_replies
        return saved.restore(Path(path), found, self.llm)


def check_template(llm: TailoredLlama, name: str) -> None:
    """Check that a model can chat.

    Raises:
        UnsupportedError: It has no chat template.
    """
    if "tokenizer.chat_template" not in llm.metadata:
        raise UnsupportedError(
            f"{name}: has no chat template, so it was not made for conversations; "
            "`vocabtailor run -p TEXT` goes on with a text"
        )
