"""Unsplit models: split on first use, found again, listed and cleared."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exactpair import COMMON, PROMPTS, take

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import BadFileError, UnsupportedError
from vocabtailor_gguf.split import cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tiny: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copy2(tiny("llama"), tmp_path / "some model.gguf"))


def test_an_unsplit_model_runs(
    model: Path, folder: Path, tiny_split: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with contextlib.closing(TailoredLlama(str(model), **COMMON)) as llm:
        found = take(llm, PROMPTS[0], 20, temp=0.0)
        assert Path(llm.model_path).parent.parent == folder
    assert "cache clear" in caplog.text
    with contextlib.closing(TailoredLlama(tiny_split("llama").core, **COMMON)) as llm:
        assert take(llm, PROMPTS[0], 20, temp=0.0) == found
    assert sorted(p.name for p in model.parent.iterdir()) == ["cache", model.name]


def test_it_is_found_again(model: Path, folder: Path, tmp_path: Path) -> None:
    first = cache.split_cached(model)
    made = first.core.stat().st_mtime_ns
    assert cache.split_cached(model) == first
    moved = tmp_path / "elsewhere" / model.name
    moved.parent.mkdir()
    shutil.move(model, moved)
    assert cache.split_cached(moved).core == first.core
    assert first.core.stat().st_mtime_ns == made
    os.utime(moved, ns=(1, 1))  # another time: it may have been replaced
    assert cache.split_cached(moved).core != first.core
    assert len(cache.entries()) == 2


def test_another_header_is_another_model(
    model: Path, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    first = cache.split_cached(model)
    stat = model.stat()
    shutil.copy(tiny("llama", seed=3), model)
    data = bytearray(model.read_bytes())
    data[data.index(b"tiny llama")] = ord("T")
    model.write_bytes(data)
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model.stat().st_size == stat.st_size
    assert cache.split_cached(model).core != first.core


def test_beside_the_model(model: Path, folder: Path) -> None:
    entry = cache.split_cached(model, here=True)
    assert entry.core == model.with_name("some model.core.gguf")
    made = entry.core.stat().st_mtime_ns
    assert cache.split_cached(model, here=True).core.stat().st_mtime_ns == made
    os.utime(model)  # newer than its split
    assert cache.split_cached(model, here=True).core.stat().st_mtime_ns > made
    assert not folder.exists()


def test_one_split_at_a_time(model: Path) -> None:
    found: list[cache.CacheEntry] = []
    threads = [
        threading.Thread(target=lambda: found.append(cache.split_cached(model))) for _ in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3 and len(set(found)) == 1


def test_list_and_clear(
    model: Path, tiny: Callable[..., Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "list"]) == 0
    assert "0 models" in capsys.readouterr().out
    for source in (model, tiny("qwen2")):
        cache.split_cached(source)
    assert main(["cache", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["folder"] == str(folder)
    assert [Path(e["source"]).name for e in listed["entries"]] == ["qwen2.gguf", model.name]
    name = listed["entries"][1]["name"]
    assert main(["cache", "clear", name]) == 0
    assert name in capsys.readouterr().out
    assert [e.name for e in cache.entries()] == [listed["entries"][0]["name"]]
    assert main(["cache", "clear", name]) == 1
    assert "no entry" in capsys.readouterr().err
    assert main(["cache", "clear"]) == 0
    assert cache.entries() == []


def test_run_takes_an_unsplit_model(
    model: Path, capsys: pytest.CaptureFixture[str], tiny_split: Callable[..., Any]
) -> None:
    common = ["-p", "hello", "-n", "8", "-c", "64", "--temp", "0"]
    assert main(["run", "-m", str(model), *common]) == 0
    out = capsys.readouterr()
    assert "cache clear" in out.err
    assert main(["run", "-m", str(model), *common]) == 0
    again = capsys.readouterr()
    assert "cache clear" not in again.err
    assert main(["run", "-m", str(tiny_split("llama").core), *common]) == 0
    assert out.out == again.out == capsys.readouterr().out


def test_what_cannot_be_split_says_so(
    tmp_path: Path, folder: Path, tiny: Callable[..., Path]
) -> None:
    with pytest.raises(BadFileError, match="none"):
        TailoredLlama(tmp_path / "none.gguf", **COMMON)
    with pytest.raises(UnsupportedError, match="bert"):
        TailoredLlama(tiny("bert"), **COMMON)
    assert not [p for p in folder.rglob("*") if p.is_file()]
