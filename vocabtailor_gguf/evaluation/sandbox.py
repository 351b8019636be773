"""Run code that a model wrote, with its tests, where it can do no harm."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from vocabtailor_gguf.errors import UnsupportedError
from vocabtailor_gguf.evaluation import confine

_RUNNER = Path(confine.__file__)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What code may take.

    Attributes:
        seconds: Of processor time; twice as much of the clock.
        memory: Bytes of address space.
    """

    seconds: int = 5
    memory: int = 512 << 20


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How the tests ended.

    Attributes:
        passed: Whether all passed.
        ended: "passed", "time", "memory", or the kind of the exception.
    """

    passed: bool
    ended: str


def run_tests(code: str, tests: str, limits: Limits | None = None) -> Verdict:
    """Run code and then its tests, in a process of its own.

    The process begins with an empty environment, in an empty folder, and lets the kernel (seccomp)
    allow it no more than to compute and to read files: no socket, no process or thread, no file
    opened for writing, no change of a file system, no signal to others.

    Args:
        code: Python code.
        tests: Asserts that follow it.
        limits: What it may take.

    Raises:
        UnsupportedError: This system cannot confine a process like that.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in confine.ALLOWED:
        raise UnsupportedError(
            "code tasks run what a model wrote, confined by Linux's seccomp on "
            f"{' and '.join(confine.ALLOWED)}; this is {sys.platform} on {machine}"
        )
    asked = limits or Limits()
    word = secrets.token_hex(16)  # code that exits early does not know what to say
    given = {
        "code": code,
        "tests": tests,
        "word": word,
        "machine": machine,
        "parent": os.getpid(),
        "seconds": asked.seconds,
        "memory": asked.memory,
    }
    with tempfile.TemporaryDirectory(prefix="vocabtailor-code-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-B", str(_RUNNER)],
                input=json.dumps(given).encode("ascii"),
                capture_output=True,
                timeout=2 * asked.seconds + 5,
                check=False,
                cwd=folder,
                env={},
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return Verdict(False, "time")
    told = done.stdout.decode("utf-8", errors="replace").split()
    if told == [word, "passed"]:
        return Verdict(True, "passed")
    if told[:1] == [confine.REFUSED]:
        raise UnsupportedError(f"the kernel does not confine processes here: {' '.join(told[1:])}")
    if done.returncode in (-9, -24):  # SIGKILL, SIGXCPU: the limit of processor time
        return Verdict(False, "time")
    if told[:1] == [word] and len(told) == 2:
        return Verdict(False, "memory" if told[1] == "MemoryError" else told[1])
    return Verdict(False, "exit")
