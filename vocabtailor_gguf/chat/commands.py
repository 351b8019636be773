"""What a line that begins with a slash does."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from vocabtailor_gguf.chat.conversation import Conversation
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.runtime.owner import Mode

SetMode = Callable[[Mode], None]
SetTokenSet = Callable[[str | None], None]


class Quit(Exception):
    """The conversation is over."""


class Commands:
    """The commands of a conversation; each returns what it tells.

    Args:
        conversation: What they act on.
        set_mode: Lets the model generate in another mode.
        set_token_set: Lets the model have the token set of a file, or none; by default its own.
    """

    def __init__(
        self,
        conversation: Conversation,
        set_mode: SetMode,
        set_token_set: SetTokenSet | None = None,
    ) -> None:
        self._conversation = conversation
        self._set_mode = set_mode
        self._set_token_set = set_token_set
        self._commands: dict[str, tuple[str, str, Callable[[str], str]]] = {
            "help": ("", "this list", self._help),
            "set": ("FILE", "take another token set; none without FILE", self._set),
            "mode": ("MODE", "exact, tailored or full", self._mode),
            "stats": ("", "tokens, speed, rows of the head, memory", self._stats),
            "save": ("FILE", "write the conversation, and its state to FILE.state", self._save),
            "load": ("FILE", "go on with one that was saved, as if it had not stopped", self._load),
            "reset": ("", "begin a new conversation", self._reset),
            "quit": ("", "end, as Ctrl-D does", self._quit),
        }

    @property
    def names(self) -> list[str]:
        """Commands with their slashes."""
        return [f"/{name}" for name in self._commands]

    def do(self, line: str) -> str:
        """Carry out a line that begins with a slash.

        Raises:
            Quit: It was /quit.
            VocabTailorError: There is no such command, or it failed.
        """
        name, _, argument = line[1:].partition(" ")
        if name not in self._commands:
            raise VocabTailorError(
                f"/{name}: no such command; /help lists them, and a text that begins with a slash "
                "is sent with a space before it"
            )
        wants, _, command = self._commands[name]
        argument = argument.strip()
        if bool(wants) != bool(argument) and name != "set":
            raise VocabTailorError(f"/{name}: expected {wants or 'nothing'} after it")
        return command(argument)

    def _help(self, _: str) -> str:
        rows = [
            (f"/{name} {arg}".rstrip(), told) for name, (arg, told, _) in self._commands.items()
        ]
        rows += [
            ("Ctrl-C", "stops a reply"),
            ("Alt-Enter", "begins a line within a message"),
            ("Ctrl-R", "searches what was typed before"),
        ]
        return "\n".join(f"{keys:<12} {told}" for keys, told in rows)

    def _set(self, path: str) -> str:
        llm = self._conversation.llm
        (self._set_token_set or llm.set_token_set)(path or None)
        return f"{len(llm.active_ids):,} of {llm.n_vocab():,} tokens are active"

    def _mode(self, mode: str) -> str:
        known: tuple[Mode, ...] = get_args(Mode)
        wanted = next((m for m in known if m == mode), None)
        if wanted is None:
            raise VocabTailorError(f"/mode: found {mode}, expected {', '.join(known)}")
        if wanted != self._conversation.llm.mode:
            self._set_mode(wanted)
        return describe(self._conversation.llm)

    def _stats(self, _: str) -> str:
        return "\n".join(stats(self._conversation))

    def _save(self, path: str) -> str:
        self._conversation.save(path)
        return f"{path}: {len(self._conversation.messages)} messages"

    def _load(self, path: str) -> str:
        lacks = self._conversation.load(path)
        told = f"{path}: {len(self._conversation.messages)} messages"
        return f"{told}, which are decoded again: {lacks}" if lacks else told

    def _reset(self, _: str) -> str:
        self._conversation.reset()
        return "a new conversation"

    def _quit(self, _: str) -> str:
        raise Quit


def describe(llm: TailoredLlama) -> str:
    """Return a line on what a model's mode can produce."""
    active, n_vocab = len(llm.active_ids), llm.n_vocab()
    if llm.mode == "tailored":
        return (
            f"mode tailored: {active:,} of {n_vocab:,} tokens and those of the conversation can be "
            "produced, no others"
        )
    return f"mode {llm.mode}: all {n_vocab:,} tokens" + (
        f", {active:,} of them active at first" if llm.mode == "exact" else ""
    )


def stats(conversation: Conversation) -> list[str]:
    """Return lines on the last reply and on the model since it was loaded."""
    llm = conversation.llm
    found, memory = llm.stats, llm.memory_report()
    vocabulary = memory.embedding + memory.head + memory.logits
    n, seconds = conversation.n_tokens, conversation.seconds
    speed = f"{n / seconds:.1f} tokens/s" if n and seconds else "no second token"
    lines = [
        f"the last reply: {speed}",
        f"context: {llm.n_tokens} of {llm.n_ctx()} tokens",
        f"mode {llm.mode}: {found.tokens:,} tokens decoded, {found.head_rows:,} head rows, "
        f"{found.rows_read:,} rows read",
        f"memory: embedding, head, logits {vocabulary / 1e6:.1f} MB, process "
        f"{(memory.anon + memory.file) / 1e6:.0f} MB",
    ]
    if llm.mode == "exact":
        lines.append(f"exact: {found.drafted:,} tokens drafted, {found.rejected:,} rejected")
    audit = llm.audit_report()
    if audit.audited:
        lines.append(f"audit: {audit.outside} of {audit.audited} choices lay outside the set")
    return lines
