"""Standard input, colours, help, completion and the reference of commands."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf import cli
from vocabtailor_gguf.cli import _color, main

ROOT = Path(__file__).parent.parent


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as e:
        code = int(e.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def test_a_prompt_from_standard_input(
    tiny_split: Callable[[str], Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ["run", "-m", tiny_split("llama").core, "-n", 4, "--temp", 0, "-c", 64, "--json"]
    expected = json.loads(run(capsys, *asked, "-p", "caffè\nyou")[1])
    stdin(monkeypatch, "caffè\r\nyou".encode("utf-8-sig"))
    found = json.loads(run(capsys, *asked)[1])
    assert (found["ids"], found["prompt_tokens"]) == (expected["ids"], expected["prompt_tokens"])
    stdin(monkeypatch, b"not read")
    assert json.loads(run(capsys, *asked, "-p", "caffè\nyou")[1])["ids"] == expected["ids"]
    stdin(monkeypatch, b"caff\xe8")
    code, out, err = run(capsys, *asked)
    assert (code, out) == (1, "")
    assert "standard input: cannot be read: not UTF-8" in err
    for nothing in (b"", None):
        if nothing is None:
            monkeypatch.setattr(sys, "stdin", None)
        else:
            stdin(monkeypatch, nothing)
        code, out, err = run(capsys, *asked)
        assert (code, out) == (2, "")
        assert err == "vocabtailor run: error: no prompt: give -p, -f or a pipe\n"


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("when", "is_terminal", "environment", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_when_there_are_colours(
    when: str,
    is_terminal: bool,
    environment: dict[str, str],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = _Screen() if is_terminal else io.StringIO()
    assert _color.is_colored(when, stream) is expected


def test_the_text_of_a_model_has_no_colour(
    tiny_split: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", "-m", tiny_split("llama").core, "-n", 4, "--temp", 0, "-c", 64, "-p", "hello"]
    plain = run(capsys, *asked)
    colored = run(capsys, *asked, "--color", "always")
    assert "\x1b" not in plain[2]
    assert colored[1] == plain[1]
    assert colored[2].startswith("\x1b[2m")


@pytest.mark.parametrize("command", ["run", "chat"])
def test_help_lets_a_new_user_choose(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "which mode:" in out
    assert "which token set:" in out
    assert all(len(line) <= 100 for line in out.split("which mode:")[1].splitlines())


@pytest.mark.parametrize(
    "command",
    [
        ["run", "-p", "a", "-m", "none"],
        ["run", "-m", "CORE", "-f", "none"],
        ["run", "-m", "CORE", "-p", "a", "--token-set", "none"],
        ["run", "-m", "CORE", "-p", "a", "--grammar-file", "none"],
        ["chat", "-m", "none"],
        ["chat", "-m", "CORE", "--token-set", "none"],
        ["score", "-m", "none", "-f", "TEXT"],
        ["score", "-m", "CORE", "-f", "none"],
        ["inspect", "none"],
        ["split", "none"],
        ["set", "show", "none"],
        ["profile", "-m", "none", "--data", "none", "-o", "s.tokens.json"],
    ],
    ids=" ".join,
)
def test_missing_files(
    command: list[str],
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    none = tmp_path / "none.gguf"
    names = {"CORE": tiny_split("qwen2").core, "TEXT": __file__, "none": none, "s.tokens.json": "s"}
    code, out, err = run(capsys, *(names.get(word, word) for word in command))
    assert (code, out) == (1, "")
    assert err.startswith(f"vocabtailor: error: {none}: ")
    assert "no such file" in err.lower()
    assert err.count("\n") == 1


# ---- completion ----


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    code, out, err = run(capsys, "completion", shell)
    assert (code, err) == (0, "")
    assert all(word in out for word in [*cli._COMMANDS, "whole-head", "streamed"])
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=out, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_completion_in_bash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("has no bash")
    (tmp_path / "m.core.gguf").touch()
    script = run(capsys, "completion", "bash")[1]
    for words, expected in (
        ("vocabtailor ch", {"chat"}),
        ("vocabtailor run --mo", {"--mode", "--model"}),
        ("vocabtailor run --mode ", {"exact", "tailored", "full"}),
        ("vocabtailor run -m m", {"m.core.gguf"}),
    ):
        n = len(words.split(" ")) - 1
        ask = (
            f"{script}\nCOMP_WORDS=({words} ''); COMP_WORDS=(\"${{COMP_WORDS[@]:0:{n + 1}}}\")\n"
            f"COMP_CWORD={n}; compopt() {{ :; }}\n"
            "$(complete -p vocabtailor | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            [bash, "--norc"], input=ask, cwd=tmp_path, text=True, capture_output=True, check=False
        )
        assert {line.strip() for line in done.stdout.splitlines()} == expected, done.stderr


def test_completion_without_its_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, out, err = run(capsys, "completion", "bash")
    assert (code, out) == (1, "")
    assert "vocabtailor_gguf[completion]" in err


# ---- the reference ----


def test_the_reference_is_new() -> None:
    path = ROOT / "tools" / "cli_docs.py"
    spec = importlib.util.spec_from_file_location("cli_docs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text == module.reference(), "run: python tools/cli_docs.py"
    for command in cli._COMMANDS:
        assert f"\n## vocabtailor {command}\n" in text
