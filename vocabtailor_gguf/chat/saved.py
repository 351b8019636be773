"""Conversations in files: messages as JSON, and beside them the state of the context.

``NAME`` holds the messages in the form of OpenAI's API, and under ``vocabtailor`` what the next
reply depends on. ``NAME.state`` holds the (n_tokens,) int32 ids of the text, little-endian, and
behind them llama.cpp's own state. A reply's tokens are decoded one by one; decoded as a batch they
would have other last bits, so only the state lets a conversation go on as if it had not stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from vocabtailor_gguf import reading
from vocabtailor_gguf.atomic import temporary_files
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama

Message = dict[str, str]  # role, content

STATE_SUFFIX = ".state"

_ROLES = ("system", "user", "assistant")
_MAX_STATE = 1 << 34  # bytes


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a file says of a conversation.

    Attributes:
        messages: The last one is no user's.
        seed: That the seeds of replies are drawn from; None in files of other programs.
        n_replies: Seeds that were drawn.
        context: Whose state lies beside the file, and its sha256; None where there is none.
    """

    messages: list[Message]
    seed: int | None = None
    n_replies: int = 0
    context: dict[str, Any] | None = None


def write(path: Path, saved: Saved, llm: TailoredLlama) -> None:
    """Write a conversation and the state of its context; both files or none.

    Raises:
        BadFileError: A file cannot be written.
        VocabTailorError: llama.cpp cannot give the state.
    """
    state = llm.save_state()
    data = state.input_ids.astype("<i4").tobytes() + state.llama_state
    context = {
        **_kind(llm),
        "n_tokens": state.n_tokens,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    own = {"seed": saved.seed, "n_replies": saved.n_replies, "context": context}
    text = json.dumps(
        {"messages": saved.messages, "vocabtailor": own}, ensure_ascii=False, indent=2
    )
    beside = path.with_name(path.name + STATE_SUFFIX)
    with temporary_files(path, beside) as (temporary, temporary_state):
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary_state.write_bytes(data)


def read(path: Path) -> Saved:
    """Read a conversation, or a list of messages.

    Raises:
        BadFileError: The file cannot be read or is malformed.
    """
    found = reading.read_json(path)
    messages = _messages(found.get("messages") if isinstance(found, dict) else found, path)
    own = found.get("vocabtailor") if isinstance(found, dict) else None
    if own is None:
        return Saved(messages)
    if not isinstance(own, dict):
        raise BadFileError(f"{path}: vocabtailor: expected an object")
    context = own.get("context")
    if not isinstance(context, dict):
        raise BadFileError(f"{path}: vocabtailor.context: expected an object")
    for name, value in (
        ("seed", own.get("seed")),
        ("n_replies", own.get("n_replies")),
        ("context.n_tokens", context.get("n_tokens")),
    ):
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise BadFileError(f"{path}: vocabtailor.{name}: expected an integer, 0 or more")
    return Saved(messages, own["seed"], own["n_replies"], context)


def restore(path: Path, saved: Saved, llm: TailoredLlama) -> str | None:
    """Give a model the state beside a file; return why it cannot have it, None where it has.

    Without the state the model's text is what it was, or empty.
    """
    if saved.context is None:
        return "no state was saved with it"
    differ = [name for name, value in _kind(llm).items() if saved.context.get(name) != value]
    if differ:
        return f"its state is of another {', '.join(differ)}"
    n = saved.context["n_tokens"]
    if n > llm.n_ctx():
        return f"its state of {n} tokens does not fit into the context of {llm.n_ctx()}"
    beside = path.with_name(path.name + STATE_SUFFIX)
    try:
        data = reading.read_bytes(beside, limit=_MAX_STATE)
        if hashlib.sha256(data).hexdigest() != saved.context.get("sha256") or len(data) < 4 * n:
            return f"{beside} is not the state that was saved with it"
        llm.load_state(_state(data, n))
    except VocabTailorError as e:
        return str(e)
    return None


def _kind(llm: TailoredLlama) -> dict[str, Any]:
    """Return what two contexts must have in common for one to take the other's state."""
    return {"model": llm.split_metadata["vocabtailor.pair_id"], "llama_cpp": llama_cpp.__version__}


def _state(data: bytes, n: int) -> llama_cpp.LlamaState:
    state = data[4 * n :]
    return llama_cpp.LlamaState(
        input_ids=np.frombuffer(data, dtype="<i4", count=n).astype(np.int32),
        scores=np.empty((0, 0), np.single),
        n_tokens=n,
        llama_state=state,
        llama_state_size=len(state),
        seed=0,  # each reply brings its own
    )


def _messages(messages: Any, where: Path) -> list[Message]:
    if not isinstance(messages, list):
        raise BadFileError(f"{where}: messages: found no list")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise BadFileError(f"{where}: message {i}: expected a role of {', '.join(_ROLES)}")
        if not isinstance(message.get("content"), str):
            raise BadFileError(f"{where}: message {i}: content: expected a string")
        if message["role"] == "system" and i:
            raise BadFileError(f"{where}: message {i}: a system prompt comes first")
    if messages and messages[-1]["role"] == "user":
        raise BadFileError(f"{where}: message {len(messages) - 1}: has no reply")
    return [{"role": m["role"], "content": m["content"]} for m in messages]
