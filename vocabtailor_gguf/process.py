"""Memory, signals and the parent of a process, as operating systems have them."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_SIGNALS = {
    "SIGSEGV": "a memory fault",
    "SIGBUS": "a memory fault",
    "SIGILL": "an instruction this CPU does not have",
    "SIGABRT": "a failed check inside llama.cpp",
    "SIGFPE": "a division by zero",
    "SIGKILL": "killed, perhaps for want of memory",
}


@dataclasses.dataclass(frozen=True)
class ProcessMemory:
    """Bytes; all 0 where the system does not tell.

    Attributes:
        anon: Resident anonymous memory.
        file: Resident memory backed by files, which the kernel can drop and read again.
        peak: Largest resident memory so far.
        data: Private memory that is allocated, resident or not.
    """

    anon: int = 0
    file: int = 0
    peak: int = 0
    data: int = 0


def process_memory() -> ProcessMemory:
    """Return the memory of this process (Linux: proc(5))."""
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ProcessMemory()
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            found[name] = int(rest.split()[0]) * 1024
    return ProcessMemory(
        anon=found.get("RssAnon", 0),
        file=found.get("RssFile", 0) + found.get("RssShmem", 0),
        peak=found.get("VmHWM", 0),
        data=found.get("VmData", 0),
    )


def reset_peak() -> None:
    """Start the peak of resident memory anew from what is resident now, where that is possible."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def signal_words(number: int) -> str:
    """Return a signal's name and, where it says why, its meaning.

    Example:
        >>> signal_words(11)
        'SIGSEGV (a memory fault)'
    """
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} ({_SIGNALS[name]})" if name in _SIGNALS else name


def die_with(parent: int) -> None:
    """Let this process be killed when its parent ends, where the system can do that (Linux).

    The parent is the thread that started this process (prctl(2)), so it must outlive its need.

    Args:
        parent: Process id of the parent; if it has ended already, so does this process.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
