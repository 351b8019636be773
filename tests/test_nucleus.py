"""A nucleus is found from the best tokens and bounds on what all others weigh."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nativecheck import build


def test_choices_are_those_among_all(tmp_path: Path) -> None:
    files = [f"decode/{s}.cpp" for s in ("chain", "grammar_mask", "nucleus", "samplers")]
    program = build("nucleus_check", files, tmp_path, libraries=("llama", "ggml", "ggml-base"))
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
