"""Where messages come from: a terminal with editing and history, or a pipe."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vocabtailor_gguf import reading
from vocabtailor_gguf.errors import BadFileError

logger = logging.getLogger(__name__)

INTERRUPTED = None  # a key that would interrupt, at the prompt

Line = str | None


def piped() -> Iterator[str]:
    """Yield the lines of standard input, which are UTF-8.

    Raises:
        BadFileError: One is not.
    """
    for line in sys.stdin.buffer if sys.stdin is not None else ():
        yield reading.text_of("standard input", line).rstrip("\n")


def typed(words: Iterable[str], history: str | None, is_plain: bool) -> Iterator[Line]:
    """Yield what is typed, until Ctrl-D; `INTERRUPTED` for Ctrl-C.

    Args:
        words: What Tab completes at the beginning of a line.
        history: A file that keeps what was typed; by default it is forgotten at the end.
        is_plain: No colours.

    Raises:
        BadFileError: The history cannot be written.
    """
    if history is not None:
        try:
            open(history, "ab").close()
        except OSError as e:
            raise BadFileError(f"{history}: cannot be written: {e.strerror or e}") from e
    ask = _editor(list(words), history, is_plain)
    while True:
        try:
            yield ask()
        except KeyboardInterrupt:
            yield INTERRUPTED
        except EOFError:
            return


def _editor(words: list[str], history: str | None, is_plain: bool) -> Callable[[], str]:
    try:
        import prompt_toolkit
    except ImportError:
        logger.warning("lines are edited better with: pip install 'vocabtailor_gguf[chat]'")
        return lambda: input("> ")
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import ColorDepth
    from prompt_toolkit.styles import Style

    keys = KeyBindings()

    def begin_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    keys.add("escape", "enter")(begin_line)

    session: Any = prompt_toolkit.PromptSession(
        [("class:mark", "> ")],
        prompt_continuation="  ",
        history=FileHistory(history) if history else InMemoryHistory(),
        completer=WordCompleter(words, sentence=True),
        complete_while_typing=False,
        style=Style.from_dict({"mark": "bold ansicyan"}),
        color_depth=ColorDepth.DEPTH_1_BIT if is_plain else None,
        key_bindings=keys,
        enable_open_in_editor=True,
    )
    return lambda: str(session.prompt())
