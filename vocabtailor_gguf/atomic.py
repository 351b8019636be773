"""Files that appear whole under their names, or not at all; several of them together.

Each is written beside its target. Then, while no other writer looks, all become ``new`` (from here
on they count), what they replace gets a second name, they take their names, and the second names
go. A failure at any point undoes this; what a kill leaves is made good by the next writer.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.leftovers import Leftover, leftover_of, lock, locked_folder, settle

_PATIENCE = 10.0  # seconds; writers of small files are done sooner


@contextlib.contextmanager
def temporary_files(
    *paths: Path, force: bool = True, patience: float = _PATIENCE
) -> Iterator[list[Path]]:
    """Give a temporary file for each path; on success all get their names, else none does.

    Args:
        paths: The files to be, in one folder.
        force: Overwrite files that exist.
        patience: Seconds to wait for another writer of one of the files.

    Raises:
        BadFileError: A file cannot be written, exists, or another process or thread is at it.
    """
    token = secrets.token_hex(4)
    files = [Leftover(p, token, "tmp") for p in paths]
    with contextlib.ExitStack() as held:
        try:
            try:
                _claim(files, held, force, patience)
                yield [f.path for f in files]
                with locked_folder(paths[0].parent):
                    _commit(files)
            finally:
                for f in files:
                    f.remove()
        except OSError as e:
            raise BadFileError(f"{_told(e, paths)}: cannot be written: {e.strerror or e}") from e


def _claim(
    files: Sequence[Leftover], held: contextlib.ExitStack, force: bool, patience: float
) -> None:
    """Create and lock the temporary files, when no other writer is at one of the targets."""
    targets = [f.target for f in files]
    end = time.monotonic() + patience
    while True:
        with locked_folder(targets[0].parent):
            busy = settle(*targets)
            if busy is None:
                _check_names(targets, force)
                for f in files:
                    fd = lock(f.path, create=True)
                    if fd is not None:
                        held.callback(os.close, fd)
                return
        if time.monotonic() >= end:
            raise _busy(busy)
        time.sleep(0.02)


def _commit(files: Sequence[Leftover]) -> None:
    """Let all files take their names, or none."""
    replaced = {f.target for f in files if f.target.exists()}
    try:
        for f in files:
            f.renamed("new")
        for f in files:
            if f.target in replaced:
                _keep(f)
        for f in files:
            _of_kind(f, "new").put_in_place()
    except BaseException:
        if any(_of_kind(f, kind).path.exists() for f in files for kind in ("tmp", "new")):
            _undo(files, replaced)
        raise
    finally:
        for f in files:
            _of_kind(f, "old").remove()


def _keep(file: Leftover) -> None:
    """Give the file that is replaced a second name, or, where there are no links, another."""
    old = _of_kind(file, "old").path
    try:
        os.link(file.target, old)
    except (OSError, AttributeError, NotImplementedError):
        os.replace(file.target, old)


def _undo(files: Sequence[Leftover], replaced: set[Path]) -> None:
    with contextlib.suppress(OSError):
        # first, lest a kill in here lets the next writer complete what is half undone
        for new in [n for f in files if (n := _of_kind(f, "new")).path.exists()][:1]:
            new.renamed("tmp")
    for f in files:
        old, new = _of_kind(f, "old"), _of_kind(f, "new")
        if old.path.exists():
            old.put_in_place()
        elif f.target not in replaced and not (new.path.exists() or f.path.exists()):
            f.target.unlink(missing_ok=True)
    for f in files:
        _of_kind(f, "new").remove()


def _of_kind(file: Leftover, kind: str) -> Leftover:
    return Leftover(file.target, file.token, kind)


@contextlib.contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Give a new folder that goes at the end; after a kill, with the next writer of `beside`.

    Raises:
        BadFileError: It cannot be made.
    """
    known = leftover_of(beside)
    folder = Leftover(known.target if known else beside, secrets.token_hex(4), "tmp")
    inner = folder.path / "files"  # writers lock the folder that they write in
    with contextlib.ExitStack() as held:
        try:
            with locked_folder(beside.parent):
                inner.mkdir(parents=True)
                fd = lock(folder.path)
        except OSError as e:
            raise BadFileError(f"{beside.parent}: cannot be written: {e.strerror or e}") from e
        if fd is not None:
            held.callback(os.close, fd)
        try:
            yield inner
        finally:
            folder.remove()


@contextlib.contextmanager
def create(path: Path, size: int) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, `size` bytes long; it is synced to disk at the end."""
    with open(path, "wb") as f:
        f.truncate(size)
        yield f
        f.flush()
        os.fsync(f.fileno())


def check_targets(*paths: Path, force: bool, size: int) -> None:
    """Refuse targets that exist or are being written, and folders without room for `size` bytes.

    What killed writers of these files left is made good first.

    Raises:
        BadFileError: A target exists and `force` is false, another process or thread is at it, or
            there is no room.
    """
    folder = paths[0].parent
    try:
        if folder.is_dir():
            with locked_folder(folder):
                busy = settle(*paths)
            if busy is not None:
                raise _busy(busy)
        _check_names(paths, force)
        folder.mkdir(parents=True, exist_ok=True)
        stat = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError as e:
        raise BadFileError(f"{folder}: {e.strerror}") from e
    if stat is not None and stat.f_bavail * stat.f_frsize < size:
        free = stat.f_bavail * stat.f_frsize
        raise BadFileError(f"{folder}: {free:,} bytes are free, {size:,} are needed")


def _check_names(paths: Sequence[Path], force: bool) -> None:
    for p in paths:
        if p.is_dir() or (p.exists() and not force):
            raise BadFileError(f"{p}: exists already; --force (force=True) overwrites it")


def _busy(path: Path) -> BadFileError:
    return BadFileError(f"{path}: is being written by another process or thread")


def _told(error: OSError, paths: Sequence[Path]) -> str:
    """Return the name that an error is about; of a temporary file, that of its target."""
    if not isinstance(error.filename, str):
        return str(error.filename or paths[0])
    known = leftover_of(Path(error.filename))
    return str(known.target if known else error.filename)
