"""Python code that runs in a process of its own, because llama.cpp may crash in it.

A child prints JSON objects, a line each: `mark` names the stage that begins, and what comes last
is its result. How it ended is told in words, so that callers can name what crashed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from vocabtailor_gguf.process import die_with, signal_words

_N_LOG_LINES = 6
_STAGE = "vocabtailor.stage"
# not -m: the child finds the very modules that this process finds
_START = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop('path'); "
    "from vocabtailor_gguf.child import begin; begin(**given)"
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        result: What it printed last, None where it gave no result.
        stage: The last stage that it marked, empty for none.
        trouble: Words that follow "it", such as "was stopped by SIGSEGV (a memory fault)"; None
            where all went well.
        log: The last lines of its stderr.
    """

    result: dict[str, Any] | None
    stage: str
    trouble: str | None
    log: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The trouble, and the end of the log where there is one."""
        told = f"it {self.trouble or 'ended well'}"
        return f"{told}; the end of its log: {' | '.join(self.log)}" if self.log else told


def run_child(
    target: str | Path, *args: str | os.PathLike[str], timeout: float | None = None
) -> Ended:
    """Run a module, or a script, as a child that does not outlive this process.

    The child is killed when this call is left by an exception, and on Linux whenever this process
    ends.

    Args:
        target: A module as for ``python -m``, or the path of a script.
        args: Its arguments.
        timeout: Seconds after which it is killed.

    Example:
        >>> run_child("vocabtailor_gguf.none").trouble
        'ended with exit code 1'
    """
    given = {
        "path": sys.path,
        "parent": os.getpid(),
        "target": str(target),
        "script": isinstance(target, Path),
        "args": [os.fsdecode(a) for a in args],
    }
    command = [sys.executable, "-P", "-c", _START, json.dumps(given)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        lines, log = _lines(e.stdout), _lines(e.stderr)
        return _ended(lines, log, f"took longer than {timeout:g} s")
    trouble = None
    if done.returncode < 0:
        trouble = f"was stopped by {signal_words(-done.returncode)}"
    elif done.returncode > 0:
        trouble = f"ended with exit code {done.returncode}"
    return _ended(_lines(done.stdout), _lines(done.stderr), trouble)


def _lines(output: bytes | None) -> list[str]:
    return (output or b"").decode("utf-8", errors="replace").strip().splitlines()


def _ended(lines: list[str], log: list[str], trouble: str | None) -> Ended:
    stage, result = "", None
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue  # llama.cpp may print what it likes
        if isinstance(found, dict) and _STAGE in found:
            stage, result = str(found[_STAGE]), None
        elif isinstance(found, dict):
            result = found
    if trouble is None and result is None:
        trouble = "gave no result"
    kept = [line.strip() for line in log if line.strip()][-_N_LOG_LINES:]
    return Ended(None if trouble else result, stage, trouble, tuple(kept))


def mark(stage: str) -> None:
    """Tell the parent which stage begins; for use in a child."""
    print(json.dumps({_STAGE: stage}), flush=True)


def begin(parent: int, target: str, script: bool, args: list[str]) -> None:
    """Become the child that `run_child` asked for."""
    die_with(parent)
    sys.argv[:] = [target, *args]
    if script:
        runpy.run_path(target, run_name="__main__")
    else:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
