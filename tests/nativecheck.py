"""Builds the checks in tests/native, which need no more than a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "native" / "src"
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", str(SOURCES)]


def need(tool: str) -> None:
    """Skip a check whose tool is missing, or fail where VOCABTAILOR_SKIP_NOTHING is set."""
    if shutil.which(tool) is None:
        found = f"{tool} is not installed"
        if os.environ.get("VOCABTAILOR_SKIP_NOTHING"):
            pytest.fail(found)
        pytest.skip(found)


def build(
    name: str,
    sources: Sequence[str],
    out: Path,
    compiler: Sequence[str] = ("c++",),
    libraries: Sequence[str] = (),
) -> Path:
    """Build tests/native/NAME.cpp with some of the library's sources; return the program.

    Args:
        name: Of the check, without its suffix.
        sources: Files in native/src.
        out: Directory of the program.
        compiler: And its own options.
        libraries: Of llama-cpp-python, such as "ggml-cpu".
    """
    need(compiler[0])
    files = [ROOT / "tests" / "native" / f"{name}.cpp", *(SOURCES / s for s in sources)]
    program = out / name
    links: list[str] = []
    if libraries:
        site = Path(sysconfig.get_path("platlib"))
        lib = site / "llama_cpp" / "lib"
        links += ["-I", str(ROOT / "native" / "include"), "-isystem", str(site / "include")]
        links += [f"-L{lib}", f"-Wl,-rpath,{lib}", *(f"-l{name}" for name in libraries)]
    command = [*compiler, *FLAGS, "-o", str(program), *map(str, files), *links]
    subprocess.run(command, check=True)
    return program
