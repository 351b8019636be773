from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from conftest import TinyModel, TinySplit, everything_in
from ggufbytes import STRING, U32, array, key, rebuilt, string
from processes import ends
from tinymodels import REFUSED

from vocabtailor_gguf.errors import BadFileError, UnsupportedError, VocabTailorError
from vocabtailor_gguf.gguf.pair import read_pair
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.split.merge import merge_model
from vocabtailor_gguf.split.split import split_model

EMBEDDING = "token_embd.weight"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_models(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=REFUSED[name]) as e:
        split_model(tiny(name), tmp_path)
    assert str(e.value).startswith(f"{tiny(name)}: ")
    assert everything_in(tmp_path) == []


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _text(name: str, text: str | bytes) -> dict[str, bytes]:
    return {name: key(name, STRING, text)}


BAD_MODELS: dict[str, tuple[dict[str, Any], type[VocabTailorError], str]] = {
    "no architecture": (
        {"drop": ["general.architecture"]},
        BadFileError,
        "architecture: missing",
    ),
    "architecture as a number": (
        {"general.architecture": key("general.architecture", U32, 1)},
        BadFileError,
        "general.architecture: of type int",
    ),
    "unknown architecture": (
        _text("general.architecture", "mamba99"),
        VocabTailorError,
        "unknown model architecture: 'mamba99'",
    ),
    "no tokenizer": (
        {"drop": ["tokenizer.ggml.model"]},
        BadFileError,
        "model: missing",
    ),
    "no tokens": ({"drop": ["tokenizer.ggml.tokens"]}, UnsupportedError, "has no tokenizer"),
    "no vocabulary": (_text("tokenizer.ggml.model", "no_vocab"), UnsupportedError, "no tokenizer"),
    "a token too few": (
        {"tokenizer.ggml.tokens": array("tokenizer.ggml.tokens", STRING, ["t"] * 431)},
        BadFileError,
        "token_embd.weight: shape (64, 432), expected (n_embd, 431)",
    ),
    "no embedding": ({"drop": [EMBEDDING]}, BadFileError, "tensor token_embd.weight: missing"),
    "no layer": ({"drop": ["blk.1.ffn_up.weight"]}, VocabTailorError, "blk.1.ffn_up.weight"),
    "special id out of range": (
        {"tokenizer.ggml.eos_token_id": key("tokenizer.ggml.eos_token_id", U32, 432)},
        VocabTailorError,
        "eos_token_id: 432, expected less than n_vocab",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    changes, kind, text = BAD_MODELS[name]
    path = rebuilt(tiny("llama-tied"), tmp_path / "bad.gguf", **changes)
    with pytest.raises(kind) as e:
        split_model(path, tmp_path / "out")
    assert text in str(e.value)
    assert [n for n in everything_in(tmp_path) if n != "out"] == ["bad.gguf"]


def test_split_of_a_split(tiny_split: TinySplit, tmp_path: Path) -> None:
    for path in (tiny_split("llama").core, tiny_split("llama").vocab):
        with pytest.raises(UnsupportedError, match=r"is already a (core|vocab) file"):
            split_model(path, tmp_path)
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        b"vocabtailor.pair_id" + b"\x08\0\0\0" + b"x" * 60,
        b"vocabtailor.source.sha256" + b"\x08\0\0\0" + b"\x40" + b"\0" * 7 + b"0" * 64,
        string("vocabtailor.pair_id") + b"\x08\0\0\0" + string("0" * 32),
    ],
    ids=["pair id", "sha256", "whole record"],
)
def test_texts_of_the_source_that_look_like_our_keys(
    text: bytes, tiny: TinyModel, tmp_path: Path
) -> None:
    path = rebuilt(tiny("llama"), tmp_path / "m.gguf", **_text("general.name", text))
    files = split_model(path)
    core, vocab = read_pair(files.core, files.vocab)
    assert len(core.get("vocabtailor.pair_id")) == 32
    for header in (core, vocab):
        assert header.get("vocabtailor.source.sha256") == sha256(path)
        assert header.keys["general.name"].record == key("general.name", STRING, text)
    assert merge_model(files.core, None, tmp_path / "merged.gguf").identical


def test_a_core_says_that_it_has_no_tokenizer(
    tiny: TinyModel, tiny_split: TinySplit, tmp_path: Path
) -> None:
    """llama.cpp loads it, and aborts where it is given text."""
    with backend.collect_log(1000, forward=False) as log:
        llama_cpp.Llama(str(tiny_split("llama").core), n_ctx=64, verbose=False).close()
    shown = next(line for line in log if "general.description" in line)
    assert "No tokenizer: use vocabtailor_gguf." in shown
    described = _text("general.description", "of its own")
    files = split_model(rebuilt(tiny("llama"), tmp_path / "m.gguf", **described))
    core, _ = read_pair(files.core, files.vocab)
    assert core.get("general.description") == "of its own"


# ---- a transaction ----


def _old_pair(tiny: TinyModel, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write a pair with other types, to be replaced; return the source and what is there."""
    source = Path(shutil.copy(tiny("llama"), folder / "m.gguf"))
    split_model(source, output_tensor_type="F16")
    return source, _hashes(folder)


def _hashes(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p) for p in folder.iterdir()}


def test_a_rename_that_fails_keeps_the_old_pair(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, old = _old_pair(tiny, tmp_path)
    real = os.replace

    def replace(a: Path, b: Path) -> None:
        if Path(b).name == "m.vocab.gguf" and not Path(a).name.endswith(".old"):
            raise OSError(5, "Input/output error", str(a))
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(BadFileError, match=r"m\.vocab\.gguf: cannot be written: Input/output"):
        split_model(source, force=True)
    assert _hashes(tmp_path) == old


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_two_threads_on_one_target(tiny: TinyModel, tmp_path: Path) -> None:
    source, old = _old_pair(tiny, tmp_path)
    refused: list[str] = []
    done: list[Path] = []

    def work() -> None:
        try:
            done.append(split_model(source, force=True).core)
        except BadFileError as e:
            refused.append(str(e))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert done
    assert all("gguf: is being written by another process or thread" in r for r in refused)
    assert len(done) + len(refused) == 3
    found = _hashes(tmp_path)
    assert sorted(found) == sorted(old)
    assert found["m.core.gguf"] != old["m.core.gguf"]
    read_pair(tmp_path / "m.core.gguf", tmp_path / "m.vocab.gguf")


def _with_path(text: str) -> list[int]:
    """Return the processes whose command line has a text (Linux)."""
    found = []
    for p in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (p / "cmdline").read_bytes():
                found.append(int(p.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a parent's death")
def test_splits_killed_at_random(tiny: TinyModel, tmp_path: Path) -> None:
    source, _ = _old_pair(tiny, tmp_path)
    core, vocab = tmp_path / "m.core.gguf", tmp_path / "m.vocab.gguf"
    pair = {core.name, vocab.name}
    random = np.random.default_rng(0)
    types = ("Q8_0", "Q5_0")
    n_left = 0
    for i in range(10):
        command = [sys.executable, "-m", "vocabtailor_gguf", "split", str(source), "--force"]
        command += ["--output-tensor-type", types[i % 2]]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            time.sleep(random.uniform(0.2, 1.2))
            p.kill()
        assert all(ends(pid) for pid in _with_path(str(tmp_path)))
        names = set(everything_in(tmp_path))
        n_left += len(names) > 3
        assert pair <= names
        read_pair(core, vocab)
    assert n_left > 2  # else nothing was killed in its work
    files = split_model(source, force=True)
    assert everything_in(tmp_path) == ["m.core.gguf", "m.gguf", "m.vocab.gguf"]
    assert merge_model(files.core, None, tmp_path / "merged.gguf").identical


# ---- files ----


def test_files_that_exist_are_kept(tiny: TinyModel, tmp_path: Path) -> None:
    source = Path(shutil.copy(tiny("llama-tied"), tmp_path / "m.gguf"))
    for name in ("m.core.gguf", "m.vocab.gguf"):
        taken = tmp_path / name
        taken.write_text("mine")
        with pytest.raises(BadFileError, match=rf"{name}: exists already; --force"):
            split_model(source)
        assert taken.read_text() == "mine"
        assert everything_in(tmp_path) == sorted(["m.gguf", name])
        taken.unlink()
    taken = tmp_path / "m.core.gguf"
    taken.write_text("mine")
    files = split_model(source, force=True)
    assert files.core == taken
    assert taken.stat().st_size > 1000
    assert everything_in(tmp_path) == ["m.core.gguf", "m.gguf", "m.vocab.gguf"]
    again = split_model(source, force=True)
    assert again == files
    with pytest.raises(BadFileError, match="exists already"):
        merge_model(files.core, None, source)
    for target in (files.core, files.vocab):
        before = target.read_bytes()
        with pytest.raises(BadFileError, match="is one of the files to merge"):
            merge_model(files.core, None, target, force=True)
        assert target.read_bytes() == before


def test_target_that_is_a_folder(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "llama-tied.vocab.gguf").mkdir()
    with pytest.raises(BadFileError, match=r"vocab\.gguf: exists already"):
        split_model(tiny("llama-tied"), tmp_path, force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFileError, match="file: "):
        split_model(tiny("llama-tied"), tmp_path / "file")
    assert everything_in(tmp_path) == ["file", "llama-tied.vocab.gguf"]


def test_source_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"none\.gguf: cannot be opened"):
        split_model(tmp_path / "none.gguf", tmp_path / "out")
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize("options", [{}, {"output_tensor_type": "Q5_0"}])
def test_interrupted_split_leaves_nothing(
    kind: type[BaseException], options: dict[str, str], tiny: TinyModel, tmp_path: Path
) -> None:
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        assert 0 < done <= total
        if done > total // 2:
            assert len(everything_in(tmp_path)) == 2
            raise kind

    with pytest.raises(kind):
        split_model(tiny("llama"), tmp_path, progress=progress, **options)
    assert seen == sorted(seen)
    assert everything_in(tmp_path) == []


def test_source_that_shrinks_while_it_is_read(tiny: TinyModel, tmp_path: Path) -> None:
    source = Path(shutil.copy(tiny("llama"), tmp_path / "m.gguf"))
    size = source.stat().st_size

    def progress(done: int, total: int) -> None:
        os.truncate(source, size // 2)

    with pytest.raises(BadFileError, match=r"m\.gguf: became shorter"):
        split_model(source, progress=progress)
    assert everything_in(tmp_path) == ["m.gguf"]


_CHILD = """
import os, resource, signal, sys
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.split.split import split_model

source, out, n_bytes = sys.argv[1:]
if n_bytes == "killed":
    split_model(source, out, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(n_bytes),) * 2)
try:
    split_model(source, out, output_tensor_type="F16")
except BadFileError as e:
    print(e)
"""


def _run_child(source: Path, out: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _CHILD, str(source), str(out), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(sys.platform == "win32", reason="has no resource module")
def test_disk_that_is_full(tiny: TinyModel, tiny_split: TinySplit, tmp_path: Path) -> None:
    source = tiny("llama-tied")
    # too small for the core, for the store, and for the model that the proof merges
    sizes = [tiny_split("llama-tied").core.stat().st_size, 110_000, source.stat().st_size + 20_000]
    for n_bytes in (0, sizes[0] - 1, *sizes[1:]):
        done = _run_child(source, tmp_path, str(n_bytes))
        assert done.returncode == 0, done.stderr
        assert "cannot be written" in done.stdout
        assert everything_in(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_killed_split_leaves_no_file_under_a_final_name(tiny: TinyModel, tmp_path: Path) -> None:
    assert _run_child(tiny("llama"), tmp_path, "killed").returncode == -signal.SIGKILL
    assert all(name.startswith(".llama.") for name in everything_in(tmp_path))
    files = split_model(tiny("llama"), tmp_path)
    assert merge_model(files.core, None, tmp_path / "m.gguf").identical
