"""Chats on a terminal."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def terminal() -> Iterator[Callable[..., Any]]:
    """Return a function that starts vocabtailor chat on a terminal."""
    if sys.platform == "win32":
        pytest.skip("has no pseudo-terminals")
    from terminals import Terminal

    script = Path(sys.executable).with_name("vocabtailor")
    with contextlib.ExitStack() as stack:

        def start(
            model: object, *options: object, cwd: Path | None = None, **environment: str
        ) -> Terminal:
            command = [script, "chat", "-m", model, "-c", 256, "-t", 1, "--temp", 0, *options]
            screen = Terminal(command, cwd=cwd, **environment)
            return stack.enter_context(contextlib.closing(screen))

        yield start


def test_keys(
    tiny_split: Callable[[str], Any], tmp_path: Path, terminal: Callable[..., Any]
) -> None:
    pytest.importorskip("prompt_toolkit")
    saved, history = tmp_path / "t.json", tmp_path / "history"
    screen = terminal(tiny_split("qwen2").core, "-n", 4, "--history", history)
    screen.wait_for("/help lists commands")
    screen.wait_for("> ")
    screen.type("hello\x1b\rworld\r")  # Alt-Enter
    screen.wait_for("the reply was cut")
    screen.wait_for("> ")
    screen.type("helo\x1b[Dl\r")  # the left arrow
    screen.wait_for("the reply was cut")
    screen.wait_for("> ")
    screen.type("/none\r")
    assert "/help lists them" in screen.wait_for("space before it")
    screen.wait_for("> ")
    screen.type("what was typed\x03")  # Ctrl-C clears the line
    screen.wait_for("Ctrl-D ends")
    screen.wait_for("> ")
    screen.type("/sav\t")
    screen.wait_for("/save")
    screen.type(f" {saved}\r")
    screen.wait_for("4 messages")
    screen.wait_for("> ")
    screen.type("\x04")
    assert screen.wait() == 0
    assert "\x1b[2m" in screen.raw
    messages = json.loads(saved.read_text("utf-8"))["messages"]
    assert [messages[i]["content"] for i in (0, 2)] == ["hello\nworld", "hello"]
    assert "+hello" in history.read_text("utf-8")


def test_no_color(tiny_split: Callable[[str], Any], terminal: Callable[..., Any]) -> None:
    screen = terminal(tiny_split("qwen2").core, NO_COLOR="1")
    screen.wait_for("/help lists commands")
    screen.wait_for("> ")
    screen.type("/quit\r")
    assert screen.wait() == 0
    assert "\x1b[2m" not in screen.raw
    assert "\x1b[36m" not in screen.raw


def test_a_history_that_cannot_be_written(
    tiny_split: Callable[[str], Any], tmp_path: Path, terminal: Callable[..., Any]
) -> None:
    screen = terminal(tiny_split("qwen2").core, "--history", tmp_path / "none" / "history")
    screen.wait_for("history: cannot be written: No such file or directory")
    assert screen.wait() == 1


def test_without_the_editor(
    tiny_split: Callable[[str], Any], tmp_path: Path, terminal: Callable[..., Any]
) -> None:
    (tmp_path / "prompt_toolkit.py").write_text("raise ImportError", encoding="utf-8")
    screen = terminal(tiny_split("qwen2").core, "-n", 4, PYTHONPATH=str(tmp_path))
    assert "vocabtailor_gguf[chat]" in screen.wait_for("> ")
    screen.type("hello\n")
    screen.wait_for("the reply was cut")
    screen.wait_for("> ")
    time.sleep(0.5)  # readline misses a signal between its prompt and its select
    screen.type("\x03")
    screen.wait_for("Ctrl-D ends")
    screen.type("\x04")
    assert screen.wait() == 0


# ---- a real model ----


@pytest.mark.model
def test_a_reply_is_stopped_by_a_key(smollm2_split: Any, terminal: Callable[..., Any]) -> None:
    screen = terminal(smollm2_split.core, "-c", 1024)
    screen.wait_for("> ")
    screen.type("Write a very long story.\r")
    screen.wait_for(" the ")
    screen.type("\x03")
    screen.wait_for("stopped")
    screen.wait_for("> ")
    screen.type("/reset\r")  # else the model may repeat the reply, and end it where it was stopped
    screen.wait_for("a new conversation")
    screen.type("Write a very long story.\r")
    screen.wait_for(" the ")
    screen.type("\x03")
    screen.wait_for("stopped")
    screen.wait_for("> ")
    screen.type("/stats\r")
    screen.wait_for("rejected")
    screen.wait_for("> ")
    screen.type("Tell it.\r")
    for seen in ("Tell it.", "\n", "e"):  # of the reply, not of what was typed
        screen.wait_for(seen)
    for _ in range(3):  # someone is in a hurry
        screen.type("\x03")
        time.sleep(0.005)
    screen.wait_for("stopped")
    screen.wait_for("> ")
    screen.type("/reset\r")
    screen.wait_for("a new conversation")
    screen.type("Write a very long story.\r")
    screen.wait_for(" the ")
    screen.type("\x03")
    screen.wait_for("stopped")
    screen.wait_for("> ")
    screen.type("/quit\r")
    assert screen.wait() == 0


@pytest.mark.model
def test_saved_in_one_program_and_loaded_in_another(
    smollm2_split: Any, tmp_path: Path, terminal: Callable[..., Any]
) -> None:
    def talk(*lines: str) -> None:
        screen = terminal(smollm2_split.core, "-c", 512, "-n", 12, "--temp", 0.9, cwd=tmp_path)
        for line in lines:
            screen.wait_for("> ")
            screen.type(f"{line}\r")
            screen.wait_for(" messages" if line.startswith("/") else "\r\n")
            if not line.startswith("/"):
                screen.wait_for("the reply was cut")
        screen.wait_for("> ")
        screen.type("/quit\r")
        assert screen.wait() == 0

    talk("Name three fruits.", "/save a.json", "Tell a story.", "/save b.json")
    talk("/load a.json", "Tell a story.", "/save c.json")
    for suffix in ("", ".state"):
        b, c = (tmp_path / f"{name}.json{suffix}" for name in "bc")
        assert b.read_bytes() == c.read_bytes()
