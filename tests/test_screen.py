"""Control characters in texts of models and files: visible on a terminal, untouched elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from vocabtailor_gguf import TailoredLlama, TokenSet
from vocabtailor_gguf.chat.commands import Commands
from vocabtailor_gguf.chat.conversation import Conversation
from vocabtailor_gguf.cli import _color, chat, main
from vocabtailor_gguf.cli._screen import shown

EVIL = "\x1b]0;title\x07\x1b[31mred\r\x9b2J"
HARMLESS = "^[]0;title^G^[[31mred^M<U+009B>2J"
# a model can be brought to write anything
GRAMMAR = r'root ::= "\x1B]0;title\x07\x1B[31mred\x0D\u009B2J"'


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EVIL, HARMLESS),
        ("a\tb\n", "a\tb\n"),
        ("\x00\x08\x0b\x0c\x7f", "^@^H^K^L^?"),
        ("\x80\x85\x9f\xa0", "<U+0080><U+0085><U+009F>\xa0"),
        ("caffè ☕ 👩‍🌾 مرحبا", "caffè ☕ 👩‍🌾 مرحبا"),
    ],
)
def test_shown(text: str, expected: str) -> None:
    assert shown(text, Screen()) == expected
    assert shown(text, io.StringIO()) == text


@pytest.fixture
def asked(tiny_split: Callable[[str], Any], tmp_path: Path) -> list[str]:
    """Return a command whose model writes `EVIL`."""
    grammar = tmp_path / "evil.gbnf"
    grammar.write_text(GRAMMAR, encoding="utf-8")
    core = tiny_split("qwen2").core
    asked = ["run", "-m", core, "-p", "hello", "-c", 256, "-t", 1, "--grammar-file", grammar]
    return [str(a) for a in asked]


def test_a_pipe_gets_what_the_model_wrote(asked: list[str]) -> None:
    script = Path(sys.executable).with_name("vocabtailor")
    done = subprocess.run([script, *asked], capture_output=True, check=True)
    assert done.stdout.decode() == EVIL + "\n"
    done = subprocess.run([script, *asked, "--json"], capture_output=True, check=True)
    text = done.stdout.decode()
    assert json.loads(text)["text"] == EVIL
    assert "\x9b" not in text


def test_a_terminal_does_not(asked: list[str]) -> None:
    if sys.platform == "win32":
        pytest.skip("has no pseudo-terminals")
    from terminals import Terminal

    script = Path(sys.executable).with_name("vocabtailor")
    with contextlib.closing(Terminal([script, *asked])) as screen:
        screen.wait_for("verification")
        assert screen.wait() == 0
    assert HARMLESS in screen.raw
    for piece in ("\x1b]0", "\x07", "\x1b[31m", "\x9b"):
        assert piece not in screen.raw


def test_a_chat(tiny_split: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Screen(), Screen()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    llm = TailoredLlama(tiny_split("qwen2").core, n_ctx=256, n_threads=1, verbose=False)
    with contextlib.closing(llm):
        grammar = llama_cpp.LlamaGrammar.from_string(GRAMMAR, verbose=False)
        conversation = Conversation(llm, sampling={"grammar": grammar, "temperature": 0.0})
        known = Commands(conversation, lambda _: llm)
        notes = _color.Notes("never")
        chat._answer(conversation, known, "hello", notes, ())
        notes.tell(EVIL)
    assert out.getvalue() == HARMLESS + "\n"
    assert err.getvalue() == HARMLESS + "\n"
    assert conversation.messages[-1]["content"] == EVIL


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.tokens.json"
    TokenSet([1, 2], None, {"corpus": EVIL}).save(path)
    out = Screen()
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["set", "show", str(path)]) == 0
    assert f"  corpus: {HARMLESS}\n" in out.getvalue()


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Screen()
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["inspect", f"none {EVIL}"]) == 1
    assert err.getvalue().startswith(f"vocabtailor: error: none {HARMLESS}: ")
