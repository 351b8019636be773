"""llama-cpp-python's own tests: fetched with its source distribution, run in a child."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import pytest

ROOT = Path(__file__).resolve().parents[1]
_FOLDER = ROOT / "build" / "upstream"
_NAME = f"llama_cpp_python-{llama_cpp.__version__}"
# what is taken out of the archive
_WANTED = ("tests/", "vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf")

# files that the tests download: their general model, a transformer, an encoder, ...
GENERAL = "Qwen3.5-0.8B-Q8_0.gguf"
TRANSFORMER = "tinyllamas/stories15M-q4_0.gguf"
RECURRENT = "mamba-130m-hf.Q2_K.gguf"
EMBEDDING = "bge-small-en-v1.5-q4_k_m.gguf"


@dataclass(frozen=True)
class Result:
    """How a test ended: passed, failed, skipped or crashed, and the first line of why."""

    outcome: str
    why: str


@functools.cache
def fetch() -> Path:
    """Return the folder of the tests of the installed version; skip where they cannot be had."""
    folder = _FOLDER / _NAME
    if (folder / "tests").is_dir():
        return folder
    _FOLDER.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(_FOLDER)),
        f"llama-cpp-python=={llama_cpp.__version__}",
    ]
    archive = _FOLDER / f"{_NAME}.tar.gz"
    if not archive.is_file():
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=600)
        except (OSError, subprocess.SubprocessError):
            pytest.skip(f"the source distribution {archive.name} cannot be fetched: no network?")
    temporary = _FOLDER / f"{_NAME}.{os.getpid()}"
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar if m.name.partition("/")[2].startswith(_WANTED)]
        tar.extractall(temporary, wanted, filter="data")
    (temporary / _NAME).rename(folder)
    temporary.rmdir()
    return folder


def run(
    mode: str, models: Mapping[str, Path], cores: Mapping[Path, Path], scratch: Path
) -> dict[str, Result]:
    """Run all tests and return their results by name.

    Args:
        mode: "stock", or a mode of TailoredLlama.
        models: Unsplit models, by the name of the file that a test downloads.
        cores: Their cores.
        scratch: A folder for the results.
    """
    results = scratch / f"{mode}.jsonl"
    given = {
        "mode": mode,
        "models": {name: str(path) for name, path in models.items()},
        "cores": {str(model): str(core) for model, core in cores.items()},
        "results": str(results),
    }
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "upstream_plugin", "-p", "no:cacheprovider"),
        *("-c", os.devnull, "--rootdir", ".", "tests"),
    ]
    env = {
        **os.environ,
        "VOCABTAILOR_UPSTREAM": json.dumps(given),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(command, cwd=fetch(), env=env, capture_output=True, text=True)
    assert results.exists(), done.stdout + done.stderr
    found = {}
    for line in results.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        name = entry["test"].removeprefix("tests/")
        found[name] = Result(entry["outcome"], "".join(entry["why"]))
    return found
