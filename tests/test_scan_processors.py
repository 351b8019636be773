"""The scan's kernels on this processor, and on others where an emulator is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from nativecheck import build, need

FILES = [f"scan/{s}.cpp" for s in ("pack", "scalar", "neon", "avx2", "avx512", "avxvnni", "tails")]
CROSS = ["aarch64-linux-gnu-g++", "-static"]

# compiler, emulator, a kernel that must be there
BUILDS = {
    "native": (["c++"], [], "scalar"),
    "aarch64": (CROSS, ["qemu-aarch64", "-cpu", "max"], "dotprod"),
    "aarch64 without dot products": (CROSS, ["qemu-aarch64", "-cpu", "cortex-a53"], "scalar"),
}


@pytest.mark.parametrize("target", BUILDS)
def test_kernels_agree_with_the_portable_one(tmp_path: Path, target: str) -> None:
    compiler, emulator, kernel = BUILDS[target]
    if emulator:
        need(emulator[0])
    program = build("scan_check", FILES, tmp_path, compiler)
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kernel in done.stdout.split()
    if "without" in target:
        assert "dotprod" not in done.stdout


def test_the_margin_for_states_of_every_magnitude(tmp_path: Path) -> None:
    files = [*FILES, "scan/scan.cpp", "base/parallel.cpp"]
    program = build(
        "scan_margin_check", files, tmp_path, libraries=("ggml", "ggml-base", "ggml-cpu")
    )
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
