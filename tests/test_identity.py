"""The tool that counts texts that are stock's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nativecheck import ROOT


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "identity.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_counts(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], tmp_path: Path
) -> None:
    options = {"n_vocab": 1024}
    model, core = tiny("llama", **options), tiny_split("llama", **options).core
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"{n} cats and dogs", "task": "pets"} for n in range(3)]
    prompts.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    asked = [model, core, prompts, "-n", 12, "-c", 64, "-t", 1, "--ignore-eos", "--samplers"]

    found = tmp_path / "found.jsonl"
    done = run("run", *asked, "greedy", "temp0.8", "--limit", 2, "-o", found)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| all | all | 4 | 4 | 48 | 48 |" in done.stdout
    done = run("run", *asked, "greedy", "temp0.8", "--skip", 2, "--alternate", "-o", found)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [json.loads(line)["row"] for line in found.read_text("utf-8").splitlines()] == [
        *(0, 0, 1, 1, 2)
    ]
    done = run("count", found)
    assert "| all | all | 5 | 5 | 60 | 60 |" in done.stdout
    assert "| greedy | pets | 3 | 3 | 36 | 36 |" in done.stdout

    done = run("run", *asked, "greedy", "--mode", "tailored")
    assert done.returncode == 1
    assert "row 0, greedy: token 0 differs" in done.stdout
