"""Conversations: replies, commands, files, pipes and a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.chat.commands import Commands, Quit
from vocabtailor_gguf.chat.conversation import Conversation
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import BadFileError, UnsupportedError

GREEDY = {"temperature": 0.0, "max_tokens": 8}


@pytest.fixture
def llm(tiny_split: Callable[[str], Any]) -> Iterator[TailoredLlama]:
    """Return a tiny model with a chat template."""
    with contextlib.closing(
        TailoredLlama(tiny_split("qwen2").core, n_ctx=256, n_threads=1, verbose=False)
    ) as llm:
        yield llm


def say(conversation: Conversation, text: str) -> str:
    return "".join(conversation.reply(text))


def test_replies_are_those_of_chat_completions(llm: TailoredLlama) -> None:
    conversation = Conversation(llm, system="be short", sampling=GREEDY)
    first = say(conversation, "hello world")
    second = say(conversation, "and now?")
    assert [m["role"] for m in conversation.messages] == ["system", *["user", "assistant"] * 2]
    assert conversation.messages[2]["content"] == first
    out = llm.create_chat_completion(conversation.messages[:-1], **GREEDY)
    assert out["choices"][0]["message"]["content"] == second
    assert out["choices"][0]["finish_reason"] == "length"
    assert conversation.was_cut
    conversation.reset()
    assert conversation.messages == [{"role": "system", "content": "be short"}]


def test_what_was_said_stays_in_the_context(llm: TailoredLlama) -> None:
    conversation = Conversation(llm, sampling={**GREEDY, "max_tokens": 2})
    say(conversation, "the first of many words " * 5)
    before, n_text = llm.stats.tokens, llm.n_tokens
    say(conversation, "go on")
    assert n_text > 40
    assert llm.stats.tokens - before < n_text


def test_seeds(llm: TailoredLlama) -> None:
    def talk(seed: int) -> list[str]:
        warm = {"temperature": 1.5, "max_tokens": 8}
        conversation = Conversation(llm, seed=seed, sampling=warm)
        return [say(conversation, "a") for _ in range(3)]

    assert talk(3) == talk(3)
    assert len(set(talk(3))) > 1
    assert talk(-1) != talk(-1)


def test_a_reply_that_is_broken_off(llm: TailoredLlama) -> None:
    conversation = Conversation(llm, sampling={**GREEDY, "max_tokens": -1})
    pieces = conversation.reply("hello")
    said = next(pieces) + next(pieces)
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": said}
    pieces = conversation.reply("again")
    pieces.close()  # before it began
    assert len(conversation.messages) == 2
    assert say(conversation, "more")


def test_a_message_that_does_not_fit(llm: TailoredLlama) -> None:
    conversation = Conversation(llm, sampling=GREEDY)
    said = say(conversation, "hello")
    before = list(conversation.messages)
    with pytest.raises(VocabTailorError, match="256 tokens: /reset"):
        say(conversation, "word " * 400)
    assert conversation.messages == before
    assert said


def test_a_template_that_refuses(llm: TailoredLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ValueError("System role not supported")

    conversation = Conversation(llm, sampling=GREEDY)
    monkeypatch.setattr(llm, "chat_handler", refuse)
    with pytest.raises(VocabTailorError, match="cannot go on: System role not supported"):
        say(conversation, "hello")
    assert conversation.messages == []


def test_a_model_without_a_template(
    tiny_split: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    core = tiny_split("llama").core
    with contextlib.closing(TailoredLlama(core, n_ctx=64, verbose=False)) as llm:
        with pytest.raises(UnsupportedError, match="vocabtailor run"):
            Conversation(llm)
    assert main(["chat", "-m", str(core), "-c", "64"]) == 1
    assert "has no chat template" in capsys.readouterr().err


# ---- files ----


def test_saved_and_loaded(llm: TailoredLlama, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    first = Conversation(llm, system="be short", sampling=GREEDY)
    say(first, "caffè?")
    first.save(path)
    assert json.loads(path.read_text("utf-8"))["messages"] == first.messages
    second = Conversation(llm, sampling=GREEDY)
    second.load(path)
    assert second.messages == first.messages
    assert say(second, "more") == say(first, "more")
    second.reset()
    assert second.messages == [{"role": "system", "content": "be short"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("3", "found no list"),
        ('{"a": 1}', "found no list"),
        ("[1]", "message 0: expected a role"),
        ('[{"role": "tool", "content": ""}]', "message 0: expected a role"),
        ('[{"role": "system", "content": null}]', "message 0: content: expected a string"),
        ('[{"role": "user", "content": "a"}]', "message 0: has no reply"),
        (
            '[{"role": "assistant", "content": "a"}, {"role": "system", "content": "a"}]',
            "message 1: a system prompt comes first",
        ),
    ],
)
def test_refused_files(llm: TailoredLlama, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(text, encoding="utf-8")
    conversation = Conversation(llm, system="s")
    with pytest.raises(BadFileError, match=message):
        conversation.load(path)
    assert conversation.messages == [{"role": "system", "content": "s"}]


# ---- commands ----


def test_commands(llm: TailoredLlama, tmp_path: Path) -> None:
    asked = []

    def reload(mode: str) -> TailoredLlama:
        asked.append(mode)
        return llm

    conversation = Conversation(llm, sampling=GREEDY)
    commands = Commands(conversation, reload)
    listed = commands.do("/help")
    assert all(name in listed for name in commands.names)
    token_set = tmp_path / "s.tokens.json"
    TokenSet(range(300, 420)).save(token_set)
    n_before = len(llm.active_ids)
    assert "of 448 tokens are active" in commands.do(f"/set {token_set}")
    assert len(llm.active_ids) > n_before
    commands.do("/set")
    assert llm.token_set is None
    assert "mode exact" in commands.do("/mode exact")
    commands.do("/mode full")
    assert asked == ["full"]
    say(conversation, "hello")
    assert "tokens/s" in commands.do("/stats").splitlines()[0]
    commands.do(f"/save {tmp_path / 't.json'}")
    commands.do("/reset")
    assert conversation.messages == []
    assert commands.do(f"/load {tmp_path / 't.json'}").endswith("2 messages")
    with pytest.raises(Quit):
        commands.do("/quit")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/none", "/none: no such command"),
        ("/etc/passwd is what?", "no such command"),
        ("/", "no such command"),
        ("/save", "expected FILE"),
        ("/reset all", "expected nothing"),
        ("/mode fast", "found fast, expected exact, tailored, full"),
        ("/set none.json", "none.json"),
        ("/load none.json", "none.json"),
        ("/save none/talk.json", "none"),
    ],
)
def test_refused_commands(llm: TailoredLlama, line: str, message: str) -> None:
    def reload(mode: str) -> TailoredLlama:
        raise AssertionError(mode)

    with pytest.raises(VocabTailorError, match=message):
        Commands(Conversation(llm), reload).do(line)


# ---- without a terminal ----


def piped(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_lines_of_a_pipe(
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    asked = ["chat", "-m", str(tiny("qwen2")), "-c", "256", "-t", "1", "--temp", "0", "-n", "8"]
    saved = tmp_path / "t.json"
    piped(monkeypatch, f"hello\n\n/mode full\nand you\n/save {saved}\n/quit\nno more\n")
    assert main(asked) == 0
    out, err = capsys.readouterr()
    messages = json.loads(saved.read_text("utf-8"))["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["hello", "and you"]
    assert out == "".join(m["content"] + "\n" for m in messages if m["role"] == "assistant")
    assert "cache clear" in err
    assert "mode full: all 448 tokens" in err
    assert "\x1b" not in err
    piped(monkeypatch, "hello\n/none\nhello\n")
    assert main(asked) == 1
    again, err = capsys.readouterr()
    assert again == out.splitlines(keepends=True)[0]
    assert "no such command" in err
    piped(monkeypatch, b"\xff\n")
    assert main(asked) == 1
    assert "standard input: cannot be read: not UTF-8" in capsys.readouterr().err
    piped(monkeypatch, "")
    assert main(asked) == 0


def test_a_chat_learns(
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    learned = tmp_path / "l.tokens.json"
    core = str(tiny_split("qwen2").core)
    piped(monkeypatch, "hello\n/mode full\n")
    asked = ["chat", "-m", core, "-c", "256", "-t", "1", "-n", "40", "--learn", str(learned)]
    assert main(asked) == 1  # the mode stays
    assert "--learn" in capsys.readouterr().err
    assert len(TokenSet.load(learned)) > 0


# ---- a terminal ----


@pytest.fixture
def terminal() -> Iterator[Callable[..., Any]]:
    """Return a function that starts vocabtailor chat on a terminal."""
    if sys.platform == "win32":
        pytest.skip("has no pseudo-terminals")
    from terminals import Terminal

    script = Path(sys.executable).with_name("vocabtailor")
    with contextlib.ExitStack() as stack:

        def start(model: object, *options: object, **environment: str) -> Terminal:
            command = [script, "chat", "-m", model, "-c", 256, "-t", 1, "--temp", 0, *options]
            return stack.enter_context(contextlib.closing(Terminal(command, **environment)))

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
    screen.type("/stats\r")
    screen.wait_for("rejected")
    screen.wait_for("> ")
    screen.type("/quit\r")
    assert screen.wait() == 0


@pytest.mark.model
def test_a_chat_remembers(smollm2_split: Any) -> None:
    llm = TailoredLlama(smollm2_split.core, n_ctx=512, n_threads=2, verbose=False)
    with contextlib.closing(llm):
        conversation = Conversation(llm, sampling={"temperature": 0.0, "max_tokens": 24})
        assert "Banana" in say(conversation, "Name three fruits.")
        before, n_text = llm.stats.tokens, llm.n_tokens
        assert say(conversation, "Which of them is the largest?")
        new = llm.n_tokens - n_text
        # but for the end of the last reply, and a draft of exact mode, nothing is decoded twice
        assert llm.stats.tokens - before <= new + 24


@pytest.mark.model
def test_as_a_command(smollm2_split: Any) -> None:
    script = Path(sys.executable).with_name("vocabtailor")
    done = subprocess.run(
        [script, "chat", "-m", smollm2_split.core, "--temp", "0", "-n", "16", "-t", "2"],
        input="Name three fruits.\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Banana" in done.stdout
