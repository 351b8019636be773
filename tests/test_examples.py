"""The examples run, and give what they are there for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf import TokenSet

FOLDER = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.model


def example(name: str, *arguments: object) -> list[str]:
    command = [sys.executable, FOLDER / f"{name}.py", *arguments]
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_is_listed_and_tested() -> None:
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in FOLDER.glob("*.py"):
        assert f"[{path.name}]" in listed
        assert f'example("{path.stem}"' in tested
    in_c = Path(__file__).with_name("test_c_api.py").read_text(encoding="utf-8")
    for path in (FOLDER.parent / "native" / "examples").glob("*.c"):
        assert f"[{path.name}](../native/examples/{path.name})" in listed
        assert f'"{path.name}"' in in_c  # which compiles and runs it


def test_translator(gemma_split: Any) -> None:
    found = example("translator", gemma_split.core, "The cat sleeps.", "The dog sleeps.")
    assert len(found) == 2
    assert all("dorme" in line for line in found)


def test_extractor(smollm2_split: Any) -> None:
    (line,) = example("extractor", smollm2_split.core)
    assert json.loads(line) == {"name": "Maria", "city": "Turin", "age": 34}


def test_summariser(smollm2_split: Any, tmp_path: Path) -> None:
    learned = tmp_path / "l.tokens.json"
    (own,) = example("summariser", smollm2_split.core, "--learn", learned)
    assert not learned.exists()  # its words are frequent ones
    text = tmp_path / "text.txt"
    text.write_text(
        "Photosynthesis turns light into sugar inside chloroplasts. Mitochondria burn it again.",
        encoding="utf-8",
    )
    (first,) = example("summariser", smollm2_split.core, "--learn", learned, text)
    assert "photosynthesis" in first != own
    assert len(TokenSet.load(learned)) > 0
    again = example("summariser", smollm2_split.core, "--learn", learned, text, text)
    assert again == [first, first]


def test_classifier(smollm2_split: Any) -> None:
    found = example("classifier", smollm2_split.core)
    assert [line.split("\t")[0] for line in found] == ["food", "weather"]
    for line in found:  # the best of three
        assert 1 / 3 < float(line.split("\t")[1]) <= 1


def test_small_drafter(smollm2_split: Any) -> None:
    core = smollm2_split.core
    plain = example("small_drafter", core, core, "-n", 24)
    assert example("small_drafter", core, core, "-n", 24, "--ahead", 1) == plain
    assert len("".join(plain)) > 20
