"""Parts of a model that are loaded side by side: what they leave behind, who hears of errors."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.beside import Beside
from vocabtailor_gguf.runtime.loading import read_arguments


class Made:
    def __init__(self, closed: list[str], name: str) -> None:
        self.closed, self.name = closed, name

    def close(self) -> None:
        self.closed.append(self.name)


def test_what_was_made_is_closed_after_an_error() -> None:
    closed: list[str] = []

    def fail() -> Made:
        raise BadFileError("no")

    with pytest.raises(BadFileError), Beside() as beside:
        beside.begin(lambda: Made(closed, "first"))
        broken = beside.begin(fail)
        beside.begin(lambda: Made(closed, "second"))
        beside.begin(lambda: 1)
        broken.result()
    assert closed in (["second", "first"], ["first"])  # what had not begun is left out
    with Beside() as beside:
        kept = beside.begin(lambda: Made(closed, "kept"))
    assert kept.result().name == "kept" and "kept" not in closed


def test_arguments_are_read_without_a_model() -> None:
    told = read_arguments({"n_ctx": 32, "n_threads": 3, "use_mmap": False, "verbose": False})
    assert (told.context_params.n_ctx, told.n_threads) == (32, 3)
    assert told.model_params.load_mode == llama_cpp.LLAMA_LOAD_MODE_NONE
    with pytest.raises(ValueError, match="Unknown value type"):
        read_arguments({"kv_overrides": {"a": None}, "verbose": False})


def test_a_log_is_collected_by_thread(tmp_path: Path) -> None:
    """Each thread's error tells of its own file, whoever else loads at the time."""
    n_rounds = 20
    found: dict[int, list[str]] = {}
    begin = threading.Barrier(3)

    def load(i: int) -> None:
        path = tmp_path / f"{i}.gguf"
        path.write_bytes(b"GGUF" + bytes([i]) * 40)
        begin.wait()
        for _ in range(n_rounds):
            with pytest.raises(BadFileError) as e:
                backend.load_model(path, llama_cpp.llama_model_default_params())
            found.setdefault(i, []).append(str(e.value))

    threads = [threading.Thread(target=load, args=(i,)) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (1, 2, 3):
        assert len(found[i]) == n_rounds
        others = {f"{j}.gguf" for j in (1, 2, 3) if j != i}
        assert all(f"{i}.gguf" in text for text in found[i])
        assert not any(other in text for text in found[i] for other in others)
    assert not backend._collectors


def test_models_loaded_by_threads_at_once(tiny_split: Callable[[str], Any]) -> None:
    """Loading touches nothing that others load, and standard output is still there."""
    core = tiny_split("llama").core
    alone = TailoredLlama(core, n_ctx=64, n_threads=1, verbose=False)
    prompt = [5, 6, 7, 8]
    expected = next(alone.generate(prompt, temp=0.0))
    logits = alone.last_logits()[1]
    alone.close()
    found: list[tuple[int, Any]] = []

    def load() -> None:
        for _ in range(5):
            llm = TailoredLlama(core, n_ctx=64, n_threads=1, verbose=True)
            found.append((next(llm.generate(prompt, temp=0.0)), llm.last_logits()[1]))
            llm.close()

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    assert all(token == expected and np.array_equal(bits, logits) for token, bits in found)


@pytest.mark.parametrize("broken", ["core", "vocab"])
def test_the_other_file_is_closed_where_one_is_broken(
    tiny_split: Callable[[str], Any], tmp_path: Path, broken: str
) -> None:
    files = tiny_split("llama")
    for kind in ("core", "vocab"):
        data = getattr(files, kind).read_bytes()
        cut = data[: len(data) // 2] if kind == broken else data
        (tmp_path / f"m.{kind}.gguf").write_bytes(cut)
    with pytest.raises(VocabTailorError, match=f"m.{broken}.gguf"):
        TailoredLlama(tmp_path / "m.core.gguf", n_ctx=64, verbose=False)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path) not in maps.read_text()
    assert not [t for t in threading.enumerate() if t.name.startswith("vocabtailor-load")]


def test_an_import_brings_no_parser(tmp_path: Path) -> None:
    code = (
        "import sys, llama_cpp\n"
        "before = set(sys.modules)\n"
        "from vocabtailor_gguf import TailoredLlama\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    # not from a source tree, which looks for what is installed
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    for name in ("pycparser", "cffi", "gguf", "importlib.metadata", "vocabtailor_gguf.split.split"):
        assert f"'{name}'" not in done.stdout
