"""Children: results, stages, crashes in words, and a death with the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ends, is_running

from vocabtailor_gguf.child import run_child
from vocabtailor_gguf.process import signal_words

posix = pytest.mark.skipif(sys.platform == "win32", reason="has no signals")


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "child.py"
    path.write_text("from vocabtailor_gguf.child import mark\n" + text, encoding="utf-8")
    return path


def test_a_result(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import json, sys\n"
        "mark('one'); print('noise'); print('[1]'); mark('two')\n"
        "print('log', file=sys.stderr)\n"
        "print(json.dumps({'args': sys.argv[1:], 'path': sys.path}))\n",
    )
    ended = run_child(path, "a b", tmp_path)
    assert ended.trouble is None
    assert ended.result == {"args": ["a b", str(tmp_path)], "path": sys.path}
    assert (ended.stage, ended.log) == ("two", ("log",))
    assert run_child("this").trouble == "gave no result"
    missing = run_child("vocabtailor_gguf.none")
    assert (missing.result, missing.trouble) == (None, "ended with exit code 1")
    assert "No module named vocabtailor_gguf.none" in missing.sentence


@posix
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SIGSEGV", "SIGSEGV (a memory fault)"),
        ("SIGABRT", "SIGABRT (a failed check inside llama.cpp)"),
        ("SIGILL", "SIGILL (an instruction this CPU does not have)"),
        ("SIGKILL", "SIGKILL (killed, perhaps for want of memory)"),
        ("SIGTERM", "SIGTERM"),
    ],
)
def test_a_crash_in_words(name: str, words: str, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import os, signal, sys\n"
        "print('{}'); mark('first')\n"
        "print('one\\n\\ntwo', file=sys.stderr, flush=True)\n"
        f"os.kill(os.getpid(), signal.{name})\n",
    )
    ended = run_child(path)
    assert (ended.result, ended.stage) == (None, "first")
    assert ended.trouble == f"was stopped by {words}"
    assert ended.sentence == f"it was stopped by {words}; the end of its log: one | two"
    assert signal_words(getattr(signal, name)) == words


def test_a_timeout(tmp_path: Path) -> None:
    ended = run_child(script(tmp_path, "mark('x')\nimport time\ntime.sleep(600)"), timeout=2)
    assert (ended.result, ended.trouble) == (None, "took longer than 2 s")


# ---- no child outlives its parent ----

_PARENT = """
import signal, sys, threading, os
from pathlib import Path
from vocabtailor_gguf.child import run_child

if sys.argv[2] == "interrupted":
    def interrupt():
        while not Path(sys.argv[3]).exists():
            pass
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
run_child(Path(sys.argv[1]), sys.argv[3])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a parent's death")
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_child_dies_with_its_parent(how: str, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    path = script(
        tmp_path,
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "open(sys.argv[1] + '.new', 'w').write(str(os.getpid()))\n"
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "time.sleep(600)\n",
    )
    command = [sys.executable, "-c", _PARENT, str(path), how, str(note)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as parent:
        while not note.exists():
            assert parent.poll() is None
            time.sleep(0.01)
        child = int(note.read_text())
        if how == "killed":
            assert is_running(child)
            parent.kill()
        assert parent.wait(60) == (-signal.SIGKILL if how == "killed" else -signal.SIGINT)
    assert ends(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a parent's death")
def test_a_child_whose_parent_died_before() -> None:
    # a process that is not the parent stands for one that has gone
    code = f"from vocabtailor_gguf.process import die_with; die_with({os.getpid()} + 1); print(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
