"""How long drafts are, for given costs and acceptance."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nativecheck import build


def test_what_it_settles_on(tmp_path: Path) -> None:
    program = build("block_length_check", ["decode/block_length.cpp"], tmp_path)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
