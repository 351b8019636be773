"""Resident memory by what is mapped (Linux: proc_pid_smaps(5))."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

COMPONENTS = ("core", "store", "stock", "anonymous", "libraries", "other")

_SMAPS = Path("/proc/self/smaps")
# begin, end, permissions, offset, device, inode, then the name, which may hold blanks
_MAP = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ \S+ \d+\s*(.*)")
_RSS = re.compile(r"Rss:\s+(\d+) kB")
_LIBRARY = re.compile(r"\.so(\.[\w.]+)?$")


def memory_by_component(files: Mapping[str, str]) -> dict[str, int] | None:
    """Return the resident bytes of this process by component; None where the system has no smaps.

    Args:
        files: Paths of models by their component: core, store, stock.

    Returns:
        Bytes by `COMPONENTS`: maps of the files, anonymous memory with heap and stacks, shared
        libraries, and other files.
    """
    try:
        text = _SMAPS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return grouped(text, files)


def grouped(smaps: str, files: Mapping[str, str]) -> dict[str, int]:
    """Return what `memory_by_component` does, from the text of smaps."""
    known = {os.path.realpath(path): component for component, path in files.items()}
    found = dict.fromkeys(COMPONENTS, 0)
    component = "other"
    for line in smaps.splitlines():
        if resident := _RSS.match(line):
            found[component] += int(resident[1]) << 10
        elif begun := _MAP.match(line):
            component = _component(begun[1], known)
    return found


def _component(name: str, known: Mapping[str, str]) -> str:
    if not name.startswith("/") or name.startswith("/dev/zero"):
        return "anonymous"  # [heap], [stack], [anon:...], or nothing
    path = name.removesuffix(" (deleted)")
    if path in known:
        return known[path]
    return "libraries" if _LIBRARY.search(path) else "other"
