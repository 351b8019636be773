"""What writers keep in a folder beside their files, and what killed ones left there.

The names are ``.NAME.TOKEN.KIND``: NAME is the file to be, TOKEN one call of a writer. A writer
locks its files while it lives; what nobody locks was left by a kill. The kinds tell how far the
writer came:

- ``tmp``: being written, or not to be used;
- ``new``: whole. With no ``tmp`` of the same token left, the files were to get their names;
- ``old``: a second name of the file that is replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from vocabtailor_gguf.errors import BadFileError

if sys.platform != "win32":
    import fcntl

_NAME = re.compile(r"\.(.+)\.([0-9a-f]{8})\.(tmp|new|old)", re.DOTALL)
_FOLDER_SECONDS = 10  # a folder is locked for as long as renames take


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A file, or a folder, beside the file `target`."""

    target: Path
    token: str
    kind: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.target.with_name(f".{self.target.name}.{self.token}.{self.kind}")

    def renamed(self, kind: str) -> Leftover:
        """Give it another kind."""
        other = dataclasses.replace(self, kind=kind)
        os.replace(self.path, other.path)
        return other

    def put_in_place(self) -> None:
        """Give it the name of its target."""
        os.replace(self.path, self.target)

    def remove(self) -> None:
        """Take it away, if it is there and that can be done."""
        with contextlib.suppress(OSError):
            if self.path.is_dir():
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink(missing_ok=True)


def leftover_of(path: Path) -> Leftover | None:
    """Return what a name stands for, None for other names."""
    found = _NAME.fullmatch(path.name)
    return Leftover(path.with_name(found[1]), found[2], found[3]) if found else None


def lock(path: Path, *, create: bool = False) -> int | None:
    """Open and lock a file or a folder; return the descriptor that holds the lock.

    Returns:
        The descriptor; None where there are no such locks.

    Raises:
        BlockingIOError: Another process or thread has locked it.
    """
    if sys.platform == "win32":
        if create:
            open(path, "xb").close()
        return None
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY
    fd = os.open(path, flags | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(fd)
        if isinstance(e, BlockingIOError):
            raise
        if e.errno in (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
            return None  # some network file systems
        raise
    return fd


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other writers from looking at a folder, or renaming in it.

    Raises:
        BadFileError: Another program keeps the folder locked.
    """
    end = time.monotonic() + _FOLDER_SECONDS
    while True:
        try:
            # a folder that can be written but not listed, and Windows: no lock
            fd = lock(folder.resolve()) if os.access(folder, os.R_OK) else None
            break
        except BlockingIOError as e:
            if time.monotonic() > end:
                raise BadFileError(f"{folder}: is kept locked by another program") from e
            time.sleep(0.005)
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def settle(*targets: Path) -> Path | None:
    """Make good what killed writers left beside these files of a locked folder.

    Files that were to get their names get them, others go.

    Returns:
        A file that a living writer is at, None where there is none.

    Raises:
        OSError: The folder cannot be listed.
    """
    folder = targets[0].parent
    everything = [f for p in folder.iterdir() if (f := leftover_of(p)) is not None]
    names = {t.name for t in targets}
    tokens = {f.token for f in everything if f.target.name in names}
    busy = None
    for token in sorted(tokens):
        group = [f for f in everything if f.token == token]
        with contextlib.ExitStack() as held:
            alive = [f for f in group if not _is_dead(f, held)]
            if not alive:
                _finish(group)
            writing = (f for f in alive if f.target.name in names and not f.path.is_dir())
            busy = next((f.target for f in writing), busy)
    return busy


def _is_dead(file: Leftover, held: contextlib.ExitStack) -> bool:
    """Tell whether nobody has locked a file, and lock it; False where that cannot be known."""
    try:
        fd = lock(file.path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if fd is not None:
        held.callback(os.close, fd)
    return fd is not None


def _finish(group: Iterable[Leftover]) -> None:
    """Undo, or complete, what a killed writer began."""
    of = {kind: [f for f in group if f.kind == kind] for kind in ("tmp", "new", "old")}
    with contextlib.suppress(OSError):
        for f in of["old"] if of["tmp"] else of["new"]:
            f.put_in_place()
    # while a tmp is there, no new counts: so it goes last
    for f in (*of["old"], *of["new"], *of["tmp"]):
        f.remove()
