"""Memory of this process. The only Python file that knows an operating system's ways."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


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
