"""Conversations: replies, commands, files and pipes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chats import GREEDY, piped, say

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.chat.commands import Commands, Quit
from vocabtailor_gguf.chat.conversation import Conversation
from vocabtailor_gguf.cli import _color, chat, main
from vocabtailor_gguf.errors import BadFileError, UnsupportedError
from vocabtailor_gguf.runtime.session import Session


@pytest.fixture
def llm(tiny_split: Callable[[str], Any]) -> Iterator[TailoredLlama]:
    """Return a tiny model with a chat template."""
    with contextlib.closing(
        TailoredLlama(tiny_split("qwen2").core, n_ctx=256, n_threads=1, verbose=False)
    ) as llm:
        yield llm


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
    assert llm.n_tokens == 0  # nor is it in what /save writes


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
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    core = tiny_split("llama").core
    with contextlib.closing(TailoredLlama(core, n_ctx=64, verbose=False)) as llm:
        with pytest.raises(UnsupportedError, match="vocabtailor run"):
            Conversation(llm)
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    for given in (core, tiny("llama")):  # the second one is split into the cache
        assert main(["chat", "-m", str(given), "-c", "64"]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"vocabtailor: error: {given}: has no chat template")


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


def goes_on(core: Path, folder: Path, mode: str, *, n: int, asks: list[str]) -> None:
    """Check that a loaded conversation has the text, the logits and the cells it would have had."""

    def load() -> TailoredLlama:
        return TailoredLlama(core, mode=mode, n_ctx=512, n_threads=1, verbose=False)

    sampling = {"temperature": 0.9, "max_tokens": n}
    with contextlib.closing(load()) as llm:
        first = Conversation(llm, seed=3, sampling=sampling)
        for ask in asks[:-2]:
            say(first, ask)
        pieces = first.reply(asks[-2])
        next(pieces)
        pieces.close()  # one that was broken off
        first.save(folder / "t.json")
        expected = [say(first, asks[-1]), llm.last_logits(), llm.save_state().llama_state]
    with contextlib.closing(load()) as llm:
        second = Conversation(llm, system="another", sampling=sampling)
        say(second, "something else")
        assert second.load(folder / "t.json") is None
        found = [say(second, asks[-1]), llm.last_logits(), llm.save_state().llama_state]
        assert second.messages == first.messages
    assert found[0] == expected[0]
    assert found[2] == expected[2]
    ids, logits = found[1]
    expected_ids, expected_logits = expected[1]
    common, here, there = np.intersect1d(ids, expected_ids, return_indices=True)
    assert common.size > 16
    assert logits[here].tobytes() == expected_logits[there].tobytes()


@pytest.mark.parametrize("mode", ["exact", "tailored", "full"])
def test_a_loaded_conversation_goes_on(
    mode: str, tiny_split: Callable[[str], Any], tmp_path: Path
) -> None:
    goes_on(tiny_split("qwen2").core, tmp_path, mode, n=8, asks=["hello", "more", "again", "last"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "0" * 32}, "its state is of another model"),
        ({"llama_cpp": "0.1"}, "its state is of another llama_cpp"),
        ({"sha256": "0" * 64}, "t.json.state is not the state that was saved with it"),
        ({"n_tokens": 257}, "its state of 257 tokens does not fit into the context of 256"),
        ({"n_tokens": 1}, "another model's"),
        (None, "no state was saved with it"),
        ("cut", "is not the state"),
        ("gone", "t.json.state: cannot be read: No such file"),
    ],
)
def test_a_conversation_without_its_state(
    llm: TailoredLlama, tmp_path: Path, change: Any, told: str
) -> None:
    conversation = Conversation(llm, sampling=GREEDY)
    say(conversation, "hello")
    path, state = tmp_path / "t.json", tmp_path / "t.json.state"
    conversation.save(path)
    said = list(conversation.messages)
    written = json.loads(path.read_text("utf-8"))
    if change is None:
        del written["vocabtailor"]
    elif change == "cut":
        state.write_bytes(state.read_bytes()[:-1])
    elif change == "gone":
        state.unlink()
    else:
        written["vocabtailor"]["context"].update(change)
    path.write_text(json.dumps(written), encoding="utf-8")
    conversation.reset()
    commands = Commands(conversation, lambda _: llm)
    assert "2 messages, which are decoded again: " in (line := commands.do(f"/load {path}"))
    assert told in line
    assert conversation.messages == said
    assert say(conversation, "more")


def test_nothing_is_saved_halfway(llm: TailoredLlama, tmp_path: Path) -> None:
    conversation = Conversation(llm, sampling=GREEDY)
    (tmp_path / "t.json.state").mkdir()
    with pytest.raises(BadFileError, match=r"t\.json\.state"):
        conversation.save(tmp_path / "t.json")
    assert [p.name for p in tmp_path.iterdir()] == ["t.json.state"]


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
        ('{"messages": [], "vocabtailor": 1}', "vocabtailor: expected an object"),
        ('{"messages": [], "vocabtailor": {}}', "vocabtailor.context: expected an object"),
        (
            '{"messages": [], "vocabtailor": {"seed": -1, "n_replies": 0, "context": {}}}',
            "vocabtailor.seed: expected an integer",
        ),
        (
            '{"messages": [], "vocabtailor": {"seed": 1, "n_replies": 0, "context": {}}}',
            "vocabtailor.context.n_tokens: expected an integer",
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
    conversation = Conversation(llm, sampling=GREEDY)
    asked: list[str] = []
    commands = Commands(conversation, asked.append)
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
    with pytest.raises(VocabTailorError, match=message):
        Commands(Conversation(llm), llm.set_mode).do(line)
    assert llm.mode == "exact"


def test_another_mode_keeps_the_text(llm: TailoredLlama) -> None:
    conversation = Conversation(llm, sampling=GREEDY)
    commands = Commands(conversation, llm.set_mode)
    say(conversation, "hello")
    known = llm.input_ids[: llm.n_tokens].copy()
    for mode in ("full", "tailored", "exact"):
        assert f"mode {mode}" in commands.do(f"/mode {mode}")
        assert conversation.llm is llm
        assert np.array_equal(llm.input_ids[: llm.n_tokens], known)
        assert len(conversation.messages) == 2


# ---- without a terminal ----


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


def test_a_system_prompt_that_is_not_utf8(
    tiny_split: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    piped(monkeypatch, "hello\n")
    asked = ["chat", "-m", str(tiny_split("qwen2").core), "-c", "256", "--no-learn"]
    assert main([*asked, "-sys", "a\udcff"]) == 1
    assert "--system: byte 0xff at 1, expected UTF-8" in capsys.readouterr().err


@pytest.mark.model
def test_a_key_ends_a_chat_without_a_terminal(smollm2_split: Any) -> None:
    script = Path(sys.executable).with_name("vocabtailor")
    start = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    asked = [sys.executable, "-c", start, script, "chat", "-m", smollm2_split.core, "-t", "1"]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"Write a very long story.\nName three fruits.\n")
        process.stdin.close()
        assert process.stdout.read(8)
        process.send_signal(signal.SIGINT)
        assert b"Banana" not in process.stdout.read()
        assert process.wait(60) == 130


def test_a_step_that_is_broken_off(
    llm: TailoredLlama, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second key may come between llama.cpp's work and the count of it."""
    conversation = Conversation(llm, sampling=GREEDY)
    expected = say(conversation, "hello")
    conversation.reset()
    extend = Session._extend

    def interrupted(self: Session, ids: Any) -> None:
        monkeypatch.setattr(Session, "_extend", extend)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        extend(self, ids)

    monkeypatch.setattr(Session, "_extend", interrupted)
    before = signal.getsignal(signal.SIGINT)
    notes = _color.Notes("never")
    chat._talk(conversation, Commands(conversation, lambda _: llm), ["hello", "hello"], notes)
    out, err = capsys.readouterr()
    assert err == "\nstopped; Ctrl-D ends\nthe reply was cut: -n or the context (-c) is full\n"
    assert out == expected + "\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.model
@pytest.mark.parametrize("mode", ["exact", "full"])
def test_a_loaded_conversation_of_a_real_model(
    mode: str, smollm2_split: Any, tmp_path: Path
) -> None:
    asks = ["Name three fruits.", "Which is the largest?", "Tell a story.", "Go on."]
    goes_on(smollm2_split.core, tmp_path, mode, n=32, asks=asks)


@pytest.mark.model
def test_as_a_command(smollm2_split: Any) -> None:
    script = Path(sys.executable).with_name("vocabtailor")
    done = subprocess.run(
        [script, "chat", "-m", smollm2_split.core, "--temp", "0", "-n", "16", "-t", "2"],
        input="Name three fruits.\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Banana" in done.stdout


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
