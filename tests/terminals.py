"""A command on a pseudo-terminal, as a user sees it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

# the command gets the terminal as its controlling one, so that keys send signals
_START = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell may have had it ignored
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
for fd in range(3):
    os.dup2(terminal, fd)
os.execv(sys.argv[2], sys.argv[2:])
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")


class Terminal:
    """A command with a terminal of 100 columns.

    Attributes:
        raw: All that was written to the screen.
    """

    def __init__(
        self, command: Sequence[object], *, cwd: Path | None = None, **environment: str
    ) -> None:
        self._fd, self._other_end = os.openpty()
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        name = os.ttyname(self._other_end)
        self.raw = ""
        self._looked_at = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, name, *map(str, command)],
            cwd=cwd,
            env={**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", **environment},
        )

    def wait_for(self, text: str) -> str:
        """Read until the text comes, and return what came up to it, without escape sequences."""
        end = time.monotonic() + 60
        while text not in (seen := _ESCAPES.sub("", self.raw)[self._looked_at :]):
            assert time.monotonic() < end, self.raw
            if select.select([self._fd], [], [], 1)[0]:
                self.raw += os.read(self._fd, 65536).decode(errors="replace")
        n = seen.index(text) + len(text)
        self._looked_at += n
        return seen[:n]

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def wait(self) -> int:
        """Return the exit code."""
        return self._process.wait(120)

    def close(self) -> None:
        """Take the terminal away."""
        self._process.kill()
        self._process.wait(60)
        os.close(self._fd)
        os.close(self._other_end)
