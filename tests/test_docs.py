"""Examples in docstrings and commands in the README are run, not only read."""

from __future__ import annotations

import doctest
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakehub import fake_hub

import vocabtailor_gguf
from vocabtailor_gguf.cli import main

ROOT = Path(__file__).parent.parent
MODULES = (
    "binding.store",
    "evaluation.metrics.code",
    "evaluation.metrics.extraction",
    "evaluation.metrics.maths",
    "evaluation.templates",
    "hub",
    "llama",
    "runtime.active",
    "runtime.forks",
    "runtime.scoring",
    "sets.token_set",
    "split.cache",
    "split.merge",
    "split.split",
    "split.verify",
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(
    name: str,
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module(f"vocabtailor_gguf.{name}")
    files = tiny_split("llama-tied")
    names = {
        "MODEL": tiny("llama-tied"),
        "CORE": files.core,
        "VOCAB": files.vocab,
        "OUT": tmp_path,
        **{n: getattr(vocabtailor_gguf, n) for n in vocabtailor_gguf.__all__},
    }
    found = doctest.testmod(module, extraglobs=names)
    assert found.attempted > 0
    assert found.failed == 0


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_begins_with_make_demo_and_make_test() -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    made = [c.split()[:2] for c in commands if c.startswith("make")]
    assert made[:2] == [["make", "demo"], ["make", "test"]]


@pytest.mark.model
def test_readme_commands(
    smollm2: Path,
    smollm2_split: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every vocabtailor command of the README, in a folder with the models it names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(smollm2, "model.gguf")
    vocabtailor_gguf.TokenSet(range(200, 5000)).save("en.tokens.json")
    for name, source in (("train.jsonl", "The cat sleeps."), ("test.jsonl", "The dog sleeps.")):
        example = {"source": source, "target": "Il gatto dorme."}
        Path(name).write_text(json.dumps(example), encoding="utf-8")
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(c, comments=True) for c in lines if c.startswith("vocabtailor ")]
    names = [c[1] for c in commands]
    assert names.index("split") == 0
    shown = {"run", "chat", "merge", "inspect", "verify", "bench", "profile", "set", "eval"}
    assert shown <= set(names)
    for command in commands:
        if command[1] == "bench":
            command += ["-r", "1", "-n", "4", "-p", "0", "--modes", "stock", "tailored"]
        if command[1] == "eval":
            command += ["-n", "4"]
        if command[1] == "chat":
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hello!\n/quit\n")))
        if "-hf" in command:
            of_a_hub(command, smollm2, tmp_path)
        else:
            assert main(command[1:]) == 0, capsys.readouterr().err


def of_a_hub(command: list[str], model: Path, folder: Path) -> None:
    """Run a command, with a hub of our own that has the model it names."""
    pytest.importorskip("huggingface_hub")
    repo, _, name = command[command.index("-hf") + 1].partition(":")
    caches = {"HF_HOME": str(folder / "hub"), "VOCABTAILOR_CACHE": str(folder / "split")}
    script = Path(sys.executable).with_name(command[0])
    with fake_hub({repo: {f"model-{name}.gguf": model}}) as (hub, _):
        done = subprocess.run(
            [script, *command[1:]], env={**os.environ, **caches, "HF_ENDPOINT": hub},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.model
def test_readme_python(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(smollm2, "model.gguf")
    vocabtailor_gguf.TokenSet(range(200, 5000)).save("en.tokens.json")
    scripts = blocks("python")
    assert scripts
    for script in scripts:
        exec(compile(script, "README.md", "exec"), {})
    assert capsys.readouterr().out
