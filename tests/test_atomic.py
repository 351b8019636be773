"""Files that appear together: failures, kills at every step, other writers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import everything_in

from vocabtailor_gguf.atomic import check_targets, temporary_files, temporary_folder
from vocabtailor_gguf.errors import BadFileError

posix = pytest.mark.skipif(sys.platform == "win32", reason="has no such locks or signals")
NAMES = ("a", "b")


def paths(folder: Path) -> list[Path]:
    return [folder / name for name in NAMES]


def write(folder: Path, text: str, **options: Any) -> None:
    with temporary_files(*paths(folder), **options) as temporary:
        for p in temporary:
            p.write_text(text)


def state(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir()}


OLD, NEW = dict.fromkeys(NAMES, "old"), dict.fromkeys(NAMES, "new")
BEFORE: dict[str, dict[str, str]] = {"both": OLD, "none": {}, "one": {"a": "old"}}


def prepare(folder: Path, before: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in before.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=str)
@pytest.mark.parametrize("done", [False, True], ids=["fails", "is done, then fails"])
def test_a_failure_at_any_step_leaves_old_or_new(
    before: dict[str, str],
    error: BaseException,
    done: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = n_calls = 0

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            nonlocal n_calls
            n_calls += 1
            if done:
                real(*args)
            if n_calls == at:
                raise error
            if not done:
                real(*args)

        return call

    monkeypatch.setattr(os, "replace", failing(os.replace))
    monkeypatch.setattr(os, "link", failing(os.link))
    kind = BadFileError if isinstance(error, OSError) else KeyboardInterrupt
    for at in range(1, 100):
        n_calls = 0
        folder = tmp_path / str(at)
        prepare(folder, before)
        with contextlib.suppress(kind):
            write(folder, "new")
        assert state(folder) in (before, NEW)
        if n_calls < at:
            break
        if not done and isinstance(error, OSError) and (not before or at < 3):
            assert state(folder) == before
    assert at > 4
    assert state(folder) == NEW


def test_the_second_name_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == "b" and Path(source).suffix == ".new":
            raise OSError(13, "Permission denied", str(source))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    for before in BEFORE.values():
        folder = tmp_path / str(len(before))
        prepare(folder, before)
        with pytest.raises(BadFileError, match=r"b: cannot be written: Permission denied"):
            write(folder, "new")
        assert state(folder) == before


_KILLED = """
import os, signal, sys
from pathlib import Path
from vocabtailor_gguf import atomic

folder, at, late, links = Path(sys.argv[1]), *map(int, sys.argv[2:])
n_calls = 0

def killing(real):
    def call(*args, **kwargs):
        global n_calls
        n_calls += 1
        mine = n_calls == at
        if mine and not late:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            real(*args, **kwargs)
        finally:
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
    return call

def no_link(*args):
    raise OSError(1, "not supported")

if not links:
    os.link = no_link
os.replace, os.link, os.unlink = map(killing, (os.replace, os.link, os.unlink))
Path.unlink = killing(Path.unlink)
with atomic.temporary_files(folder / "a", folder / "b") as temporary:
    for p in temporary:
        p.write_text("new")
"""


@posix
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("links", [1, 0], ids=["links", "no links"])
def test_a_kill_at_any_step_is_made_good(
    before: dict[str, str], links: int, tmp_path: Path
) -> None:
    found = []
    for late in (0, 1):
        for at in range(1, 100):
            folder = tmp_path / f"{late}-{at}"
            prepare(folder, before)
            command = [sys.executable, "-c", _KILLED, str(folder), str(at), str(late), str(links)]
            done = subprocess.run(command, check=False)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL
            with contextlib.suppress(BadFileError):
                check_targets(*paths(folder), force=False, size=1)
            assert state(folder) in (before, NEW)
            found.append(state(folder))
            write(folder, "third")
            assert state(folder) == dict.fromkeys(NAMES, "third")
        assert at > 4
        assert state(folder) == NEW
    assert before in found
    assert NEW in found


@posix
def test_only_one_writer(tmp_path: Path) -> None:
    begin, results = threading.Barrier(8), []
    inside = threading.Event()

    def work(name: str) -> None:
        begin.wait()
        try:
            with temporary_files(*paths(tmp_path), patience=0) as temporary:
                for p in temporary:
                    p.write_text(name)
                inside.wait(60)
            results.append(name)
        except BadFileError as e:
            results.append(str(e))
            if len(results) == 7:
                inside.set()

    threads = [threading.Thread(target=work, args=(f"writer {i}",)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    won = [r for r in results if r.startswith("writer")]
    assert len(won) == 1
    assert state(tmp_path) == dict.fromkeys(NAMES, won[0])
    refused = {r for r in results if r not in won}
    expected = "is being written by another process or thread"
    assert refused <= {f"{p}: {expected}" for p in paths(tmp_path)}


@posix
def test_a_patient_writer_waits(tmp_path: Path) -> None:
    def later() -> None:
        write(tmp_path, "second", patience=60)

    thread = threading.Thread(target=later)
    with temporary_files(tmp_path / "b") as (temporary,):
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        with pytest.raises(BadFileError, match="b: is being written by another"):
            check_targets(*paths(tmp_path), force=True, size=1)
        check_targets(tmp_path / "a", force=True, size=1)
        temporary.write_text("first")
    thread.join()
    assert state(tmp_path) == dict.fromkeys(NAMES, "second")


@posix
def test_what_others_left(tmp_path: Path) -> None:
    mine = [".a.0123abcd.tmp", ".b.0123abcd.new", ".b.89abcdef.tmp"]
    others = [".c.0123abce.tmp", ".a.tmp", ".a.0123abcg.tmp", "a.0123abcd.tmp", ".ab.00000000.tmp"]
    for name in (*mine, *others):
        (tmp_path / name).write_text("left")
    (tmp_path / ".a.00000001.tmp").mkdir()
    (tmp_path / ".a.00000001.tmp" / "merged").write_text("left")
    with temporary_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("")
        write(tmp_path, "new", force=False)
        assert (folder / "x").exists()
    assert everything_in(tmp_path) == sorted([*others, *NAMES])
    with pytest.raises(BadFileError, match="a: exists already"):
        write(tmp_path, "newer", force=False)
    assert everything_in(tmp_path) == sorted([*others, *NAMES])


def test_errors_name_the_target(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"none: cannot be written: No such file"):
        write(tmp_path / "none", "")
    with (
        pytest.raises(BadFileError, match=rf"{tmp_path}/a: cannot be written: Is a directory"),
        temporary_files(tmp_path / "a") as (temporary,),
    ):
        temporary.unlink()
        temporary.mkdir()
        temporary.open("wb")
    assert everything_in(tmp_path) == []
