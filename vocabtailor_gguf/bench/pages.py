"""Files in the page cache, and out of it."""

from __future__ import annotations

import os
from collections.abc import Iterable

_CHUNK = 1 << 20
CAN_DROP = hasattr(os, "posix_fadvise")


def drop(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Let the system drop the pages of files that no process maps (posix_fadvise(2)).

    Pages that wait to be written cannot be dropped, so they are written first.

    Raises:
        OSError: A file cannot be opened.
    """
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def fill(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Read files once, so that their pages are in the cache where there is room.

    Raises:
        OSError: A file cannot be read.
    """
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(_CHUNK):
                pass
