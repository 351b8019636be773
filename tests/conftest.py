from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exactpair import Pair
from tinymodels import write_tiny_model

from vocabtailor_gguf.split.split import SplitFiles, split_model

GEMMA = "gemma-3-270m-q4_k_m.gguf"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"

TinyModel = Callable[..., Path]
TinySplit = Callable[..., SplitFiles]


def everything_in(folder: Path) -> list[str]:
    """Returns the names of all files and folders, hidden ones too."""
    return sorted(p.name for p in folder.rglob("*"))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what is split on first use, or found at load, out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOCABTAILOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Returns a function that writes a tiny model once; arguments as of write_tiny_model."""
    folder = tmp_path_factory.mktemp("tiny")

    def get(name: str, **options: Any) -> Path:
        parts = [name, *(f"{k}={v}" for k, v in sorted(options.items()))]
        path = folder / f"{'-'.join(parts)}.gguf"
        return path if path.exists() else write_tiny_model(path, name, **options)

    return get


@pytest.fixture(scope="session")
def tiny_split(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> TinySplit:
    """Returns a function that splits a tiny model once; arguments as of `tiny`."""
    folder = tmp_path_factory.mktemp("tiny_split")
    done: dict[Path, SplitFiles] = {}

    def get(name: str, **options: Any) -> SplitFiles:
        path = tiny(name, **options)
        if path not in done:
            done[path] = split_model(path, folder)
        return done[path]

    return get


def _real_model(name: str) -> Path:
    default = Path(__file__).resolve().parents[1] / "models"
    path = Path(os.environ.get("VOCABTAILOR_MODELS", default)) / name
    if not path.is_file():
        pytest.skip(
            f"{path} is missing: run `make models`, or set VOCABTAILOR_MODELS to its folder"
        )
    return path


@pytest.fixture(scope="session")
def gemma() -> Path:
    """Returns Gemma 3 270M, unsplit."""
    return _real_model(GEMMA)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Returns SmolLM2 135M Instruct, unsplit."""
    return _real_model(SMOLLM2)


@pytest.fixture(scope="session")
def gemma_split(gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> SplitFiles:
    """Returns the split Gemma."""
    return split_model(gemma, tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="session")
def smollm2_split(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> SplitFiles:
    """Returns the split SmolLM2."""
    return split_model(smollm2, tmp_path_factory.mktemp("smollm2"))


@pytest.fixture
def pair(tiny: Any, tiny_split: Any) -> Iterator[Callable[..., Pair]]:
    """Returns a function that loads a tiny model twice."""
    with contextlib.ExitStack() as stack:

        def get(name: str, model: dict[str, Any] | None = None, **options: Any) -> Pair:
            model = model or {}
            files = tiny_split(name, **model)
            return stack.enter_context(
                contextlib.closing(Pair(tiny(name, **model), files.core, **options))
            )

        yield get
