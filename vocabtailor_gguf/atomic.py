"""Files that appear whole under their names, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vocabtailor_gguf.errors import BadFileError


def temporary_name(path: Path) -> Path:
    """Return the name under which `path` is written, in the same folder."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def temporary_files(*paths: Path) -> Iterator[list[Path]]:
    """Give a temporary name for each path; on success rename all, else remove all.

    Raises:
        BadFileError: A file cannot be written.
    """
    temporary = [temporary_name(p) for p in paths]
    done: list[Path] = []
    try:
        yield temporary
        for source, target in zip(temporary, paths, strict=True):
            os.replace(source, target)
            done.append(target)
    except BaseException as e:
        if len(done) < len(paths):
            for p in done:
                p.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise BadFileError(f"{e.filename or paths[0]}: cannot be written: {e.strerror}") from e
        raise
    finally:
        for p in temporary:
            p.unlink(missing_ok=True)


@contextlib.contextmanager
def create(path: Path, size: int) -> Iterator[BinaryIO]:
    """Open a new file of `size` bytes for writing; it is synced to disk at the end."""
    with open(path, "xb") as f:
        f.truncate(size)
        yield f
        f.flush()
        os.fsync(f.fileno())


def check_targets(*paths: Path, force: bool, size: int) -> None:
    """Refuse targets that exist, and folders without room for `size` bytes.

    Raises:
        BadFileError: A target exists and `force` is false, or there is no room.
    """
    for p in paths:
        if p.is_dir() or (p.exists() and not force):
            raise BadFileError(f"{p}: exists already; --force (force=True) overwrites it")
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stat = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError as e:
        raise BadFileError(f"{folder}: {e.strerror}") from e
    if stat is not None and stat.f_bavail * stat.f_frsize < size:
        free = stat.f_bavail * stat.f_frsize
        raise BadFileError(f"{folder}: {free:,} bytes are free, {size:,} are needed")
