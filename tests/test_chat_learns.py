"""What chats learn, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chats import piped

from vocabtailor_gguf import TokenSet
from vocabtailor_gguf.cli import main


def test_what_was_learned_outlives_a_mode(
    tiny_split: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    core = str(tiny_split("qwen2").core)
    asked = ["chat", "-m", core, "-c", "256", "-t", "1", "-n", "40", "--temp", "1.5", "--seed", "5"]
    kept = []
    for lines in ("hello\n", "hello\n/mode full\n/mode exact\nhello again\n"):
        piped(monkeypatch, lines)
        assert main(asked) == 0
        (file,) = (tmp_path / "learned").iterdir()
        kept.append(set(TokenSet.load(file).ids.tolist()))
        file.unlink()
    first, both = kept
    assert first < both


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


def test_what_was_learned_outlives_a_set(
    tiny_split: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another set changes neither what is kept of the one before nor what it is kept of."""
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    core = str(tiny_split("qwen2").core)
    asked = ["chat", "-m", core, "-c", "256", "-t", "1", "-n", "40", "--temp", "1.5", "--seed", "5"]
    other = tmp_path / "other.tokens.json"
    TokenSet(range(300, 320), provenance={"learned": {"300": 50.0, "301": 50.0}}).save(other)
    kept = []
    for lines in ("hello\n", f"hello\n/set {other}\n/reset\n"):
        piped(monkeypatch, lines)
        assert main(asked) == 0
        (file,) = (tmp_path / "learned").iterdir()
        kept.append(dict(TokenSet.load(file).provenance["learned"]))
        file.unlink()
    assert kept[0] and kept[0] == kept[1]


def test_a_set_joins_what_is_learned_into_a_file(
    tiny_split: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, other = tmp_path / "l.tokens.json", tmp_path / "other.tokens.json"
    TokenSet(range(300, 320)).save(other)
    core = str(tiny_split("qwen2").core)
    asked = ["chat", "-m", core, "-c", "256", "-t", "1", "-n", "40", "--temp", "1.5", "--seed", "5"]
    found = []
    for lines in ("hello\n", f"hello\n/set {other}\n/reset\n", "/set\nhello\n/reset\n"):
        piped(monkeypatch, lines)
        assert main([*asked, "--learn", str(learned)]) == 0
        found.append(set(TokenSet.load(learned).ids.tolist()))
    assert found[0] < found[1] and set(range(300, 320)) <= found[1] <= found[2]


def test_other_modes_see_nothing_of_what_was_learned(
    tiny_split: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    core, given = str(tiny_split("qwen2").core), tmp_path / "given.tokens.json"
    TokenSet(range(300, 320)).save(given)
    asked = ["chat", "-m", core, "-c", "256", "-t", "1", "-n", "40", "--temp", "1.5"]
    piped(monkeypatch, "hello\n")
    assert main([*asked, "--seed", "5"]) == 0
    capfd.readouterr()
    piped(monkeypatch, "/mode tailored\n")
    assert main([*asked, "--token-set", str(given)]) == 0
    after = capfd.readouterr().err
    piped(monkeypatch, "/mode tailored\n")
    assert main([*asked, "--token-set", str(given), "--mode", "tailored"]) == 0
    assert capfd.readouterr().err == after and "mode tailored" in after


def test_a_chat_learns_by_itself(
    tiny_split: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    core = str(tiny_split("qwen2").core)
    asked = ["chat", "-m", core, "-c", "256", "-t", "1", "-n", "40", "--temp", "1.5"]
    given = tmp_path / "given.tokens.json"
    TokenSet(range(300, 320)).save(given)

    def says(*more: str) -> str:
        piped(monkeypatch, "hello\n")
        assert main([*asked, *more]) == 0
        return str(capfd.readouterr().out)

    first = says("--no-learn", "--seed", "5")
    assert not (tmp_path / "learned").exists()
    assert says("--seed", "5") == first
    (kept,) = (tmp_path / "learned").iterdir()
    learned = TokenSet.load(kept)
    assert len(learned) > 0
    assert {str(i) for i in learned.ids} == set(learned.provenance["learned"])
    assert says("--seed", "5") == first  # and drafts with it
    assert says("--seed", "6", "--token-set", str(given)) != first
    assert {str(i) for i in TokenSet.load(kept).ids} == set(
        TokenSet.load(kept).provenance["learned"]
    )
    for damaged in ("{", '{"format": "other"}'):
        kept.write_text(damaged, encoding="utf-8")
        assert says("--seed", "5") == first
        TokenSet.load(kept)
    assert main(["cache", "list"]) == 0
    assert "learned by chats" in capfd.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert "0 models" in capfd.readouterr().out
    assert not (tmp_path / "learned").exists()
    (tmp_path / "learned").touch()  # nothing can be kept there
    assert says("--seed", "5") == first
