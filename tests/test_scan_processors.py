"""The kernels of other processors, where a cross compiler and an emulator are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCAN = ROOT / "native" / "src" / "scan"
SOURCES = [SCAN / f"{name}.cpp" for name in ("pack", "scalar", "neon", "avx2", "avx512", "avxvnni")]
CHECK = ROOT / "tests" / "native" / "scan_check.cpp"

BUILDS = {
    "native": (["c++"], []),
    "aarch64": (["aarch64-linux-gnu-g++", "-static"], ["qemu-aarch64", "-cpu", "max"]),
    # without the dot product
    "aarch64, plain": (
        ["aarch64-linux-gnu-g++", "-static"],
        ["qemu-aarch64", "-cpu", "cortex-a53"],
    ),
}
KERNELS = {"native": "scalar", "aarch64": "dotprod", "aarch64, plain": "scalar"}


@pytest.mark.parametrize("target", BUILDS)
def test_kernels_agree_with_the_portable_one(tmp_path: Path, target: str) -> None:
    compiler, emulator = BUILDS[target]
    for tool in (compiler[0], *emulator[:1]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    out = tmp_path / "scan_check"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "native/src")]
    subprocess.run([*compiler, *flags, "-o", str(out), str(CHECK), *map(str, SOURCES)], check=True)
    done = subprocess.run([*emulator, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert KERNELS[target] in done.stdout.split()
    assert ("dotprod" in done.stdout) == (KERNELS[target] == "dotprod")
