"""What models were found to lack, kept from use to use."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf import TokenSet
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.sets import kept
from vocabtailor_gguf.sets.kept import Kept, learned_file

PRINT = "a" * 64


def opened(path: Path | None) -> Kept:
    return Kept(path, PRINT, 1000)


def counts(path: Path) -> dict[str, float]:
    found = TokenSet.load(path)
    told: dict[str, float] = found.provenance["learned"]
    assert found.tokenizer == PRINT and {str(i) for i in found.ids} == set(told)
    return told


def test_counts_go_on_and_fade(tmp_path: Path) -> None:
    path = tmp_path / "learned" / "m.tokens.json"
    first = opened(path)
    first.save()
    assert not path.exists()  # it was not used
    first.note({7: 1, 5: 2})
    first.save()
    first.note({7: 1})
    first.save()
    assert counts(path) == {"5": 2.0, "7": 2.0}
    second = opened(path)
    assert sorted(second.tokens()[1]) == [5, 7]
    second.save()
    assert counts(path) == {"5": 2.0, "7": 2.0}
    second.note({7: 1})
    second.save()
    second.note({9: 1})
    second.save()  # earlier uses fade once a use
    assert counts(path) == pytest.approx({"5": 1.6, "7": 2.6, "9": 1.0})
    for _ in range(6):
        other = opened(path)
        other.note({5: 1})
        other.save()
    assert set(counts(path)) == {"5", "7"}
    for _ in range(30):
        other = opened(path)
        other.note({})
        other.save()
    assert counts(path)  # the last ones stay, since a set has at least one


def test_writers_do_not_destroy_each_others_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.tokens.json"
    one, two = opened(path), opened(path)
    one._decay = two._decay = 1
    one.note({5: 2})
    two.note({5: 1, 6: 1})
    one.save()
    two.save()
    one.note({7: 1})
    one.save()
    assert counts(path) == {"5": 3.0, "6": 1.0, "7": 1.0}


_WRITE = f"""
import pathlib, sys
from vocabtailor_gguf.sets.kept import Kept
one = Kept(pathlib.Path(sys.argv[1]), {PRINT!r}, 1000)
one._decay = 1
for _ in range(20):
    one.note({{int(sys.argv[2]): 1, 1: 1}})
    one.save()
"""


def test_processes_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "m.tokens.json"
    processes = [
        subprocess.Popen([sys.executable, "-c", _WRITE, str(path), token]) for token in "23"
    ]
    for p in processes:
        assert p.wait(120) == 0
    assert counts(path) == {"1": 40.0, "2": 20.0, "3": 20.0}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_there_are_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 8)
    path = tmp_path / "m.tokens.json"
    one = opened(path)
    version, _ = one.tokens()
    one.note(Counter({t: t for t in range(1, 9)}))
    assert one.tokens() == (version, list(range(1, 9)))
    one.note({100: 1})
    later, tokens = one.tokens()
    assert later != version and sorted(tokens) == [5, 6, 7, 8]
    one.save()
    assert len(counts(path)) == 8 and "8" in counts(path)


def test_one_without_a_file(tmp_path: Path) -> None:
    one = opened(None)
    one.note({5: 1})
    one.save()
    assert one.tokens()[1] == [5]


WRONG = {
    "no JSON": "{",
    "other": '{"format": "other"}',
    "bytes": "\0\1\2",
    "another tokenizer": json.dumps(
        {"format": "vocabtailor.tokens", "version": 1, "tokenizer": "b" * 64, "ids": [3],
         "provenance": {"learned": {"3": 9}}}
    ),
    "counts": json.dumps(
        {"format": "vocabtailor.tokens", "version": 1, "tokenizer": PRINT, "ids": [3],
         "provenance": {"learned": {"three": 9}}}
    ),
    "huge": json.dumps(
        {"format": "vocabtailor.tokens", "version": 1, "tokenizer": PRINT, "ids": [3],
         "provenance": {"learned": {"3": 10**400}}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_file_that_is_wrong(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, and the next write replaces it."""
    path = tmp_path / "m.tokens.json"
    path.write_text(text, encoding="utf-8")
    one = opened(path)
    assert one.tokens()[1] == []
    one.note({5: 1})
    one.save()
    assert counts(path) == {"5": 1.0}
    (told,) = caplog.records
    assert told.levelno == logging.WARNING and str(path) in told.getMessage()


def test_counts_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "m.tokens.json"
    wrong = {"5": 1, "6": float("nan"), "7": float("inf"), "8": -1, "77": 3, "1000": 3, "-1": 2}
    TokenSet([5, 6, 7, 8, 9, 1000], PRINT, {"learned": wrong}).save(path)
    assert opened(path).tokens()[1] == [5]


def test_what_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "learned").touch()
    one = opened(tmp_path / "learned" / "m.tokens.json")
    for _ in range(3):
        one.note({5: 1})
        one.save()
    assert len(caplog.records) <= 2
    assert any("not kept" in r.getMessage() for r in caplog.records)
    (tmp_path / "learned").unlink()
    one.save()
    assert counts(tmp_path / "learned" / "m.tokens.json") == {"5": 3.0}


def test_a_file_of_its_own_can_be_cleared(
    tiny_split: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    files = [learned_file(tiny_split(name).core) for name in ("llama", "qwen2")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        TokenSet([5], PRINT, {"learned": {"5": 1}}).save(file)
    assert main(["cache", "list", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)["learned"]
    assert [Path(name).name for name in names] == [file.name for file in files]
    assert main(["cache", "clear", names[0]]) == 0
    assert names[0] in capsys.readouterr().out
    assert not files[0].exists() and files[1].exists()
    assert main(["cache", "clear", names[0]]) == 1
    capsys.readouterr()
    assert main(["cache", "clear"]) == 0
    assert names[1] in capsys.readouterr().out and not files[1].exists()
    shutil.rmtree(tmp_path / "learned", ignore_errors=True)
