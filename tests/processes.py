"""Whether a process that is no child of ours is running."""

from __future__ import annotations

import time
from pathlib import Path


def is_running(pid: int) -> bool:
    """Returns whether a process is neither gone nor a zombie (Linux)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rsplit(")", 1)[1].split()[0] != "Z"


def ends(pid: int, seconds: float = 60) -> bool:
    """Returns whether a process ends by itself, or is ended, within some time."""
    end = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
