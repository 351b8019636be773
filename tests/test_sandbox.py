"""Code of a model is run where it can do no harm; limits are reached by real code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vocabtailor_gguf.errors import UnsupportedError
from vocabtailor_gguf.evaluation.confine import ALLOWED, filter_program
from vocabtailor_gguf.evaluation.sandbox import Limits, Verdict, run_tests

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ALLOWED,
    reason="confined by Linux's seccomp",
)
LIMITS = Limits(seconds=1, memory=256 << 20)
DENIED = "PermissionError"


def test_tests_pass_and_fail() -> None:
    code = "import math, re, collections, heapq\ndef f(x):\n    print(x)\n    return math.floor(x)"
    assert run_tests(code, "assert f(1.5) == 1") == Verdict(True, "passed")
    assert run_tests(code, "assert f(1.5) == 2") == Verdict(False, "AssertionError")
    assert run_tests("def f(", "assert True") == Verdict(False, "SyntaxError")
    assert run_tests("x = '\ud800'", "assert len(x) == 1") == Verdict(False, "UnicodeEncodeError")


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("while True: pass", "time"),
        ("x = [0] * 10**9", "memory"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import socket; socket.socket()", DENIED),
        ("import os; os.fork()", DENIED),
        ("import subprocess; subprocess.run(['ls'])", DENIED),
        ("import os; os.execv('/bin/ls', ['ls'])", DENIED),
        ("import threading; threading.Thread(target=print).start()", "RuntimeError"),
        ("import os; os.kill(os.getppid(), 9)", DENIED),
        ("open('a', 'w')", DENIED),
        ("import os; os.mkdir('a')", DENIED),
        ("import resource as r; r.setrlimit(r.RLIMIT_CPU, (9, 9))", "ValueError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "exit"),
        ("import os; os.write(1, b'passed'); os._exit(0)", "exit"),
        ("input()", "EOFError"),
        ("import ctypes; assert ctypes.CDLL(None).prctl(1, 0) == 0", "AssertionError"),
    ],
)
def test_what_code_cannot_do(code: str, ended: str) -> None:
    assert run_tests(code, "assert True", LIMITS) == Verdict(False, ended)


def test_files_are_read_only(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x")
    for call in (
        f"os.remove({str(kept)!r})",
        f"os.rename({str(kept)!r}, 'b')",
        f"os.chmod({str(kept)!r}, 0)",
        f"os.truncate({str(kept)!r}, 0)",
        f"os.symlink({str(kept)!r}, 'b')",
        f"open({str(kept)!r}, 'a')",
    ):
        assert run_tests(f"import os; {call}", "", LIMITS) == Verdict(False, DENIED)
    assert run_tests(f"assert open({str(kept)!r}).read() == 'x'", "") == Verdict(True, "passed")
    assert kept.read_text() == "x" and os.listdir(tmp_path) == ["kept"]


def test_nothing_of_the_environment_is_seen() -> None:
    code = "import os\nassert not os.environ.get('PATH') and os.listdir('.') == []"
    assert run_tests(code, "") == Verdict(True, "passed")


def test_calls_of_another_architecture_are_not_taken_for_these() -> None:
    for machine in ALLOWED:
        assert len(filter_program(machine)) % 8 == 0
    assert filter_program("x86_64") != filter_program("aarch64")
    if platform.machine() == "x86_64":
        # the 32-bit way to call: numbers begin at 0x40000000
        code = "import ctypes\nassert ctypes.CDLL(None).syscall(0x40000000 + 39) == -1"
        assert run_tests(code, "") == Verdict(True, "passed")


def test_a_system_that_cannot_confine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "mips")
    with pytest.raises(UnsupportedError, match="seccomp"):
        run_tests("", "")


def test_code_ends_with_the_caller(tmp_path: Path) -> None:
    """Also where it sleeps for ever, and the caller is killed."""
    caller = (
        "from vocabtailor_gguf.evaluation.sandbox import run_tests\n"
        "run_tests('import signal, time\\nwhile True: time.sleep(9)', '')"
    )
    with subprocess.Popen([sys.executable, "-c", caller]) as process:
        children: list[str] = []
        while not children:
            assert process.poll() is None
            tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            children = tasks.read_text().split()
            time.sleep(0.05)
        time.sleep(0.5)  # so that it has begun to sleep
        process.kill()
    for _ in range(1200):
        if not Path(f"/proc/{children[0]}").exists():
            return
        time.sleep(0.05)
    pytest.fail("it still runs")
