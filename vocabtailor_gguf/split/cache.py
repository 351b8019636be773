"""Models that were split on first use, kept in a folder of the user's.

An entry is found again by the size, the time and the header of its source, so a model that was
moved is found too, and one that was replaced is split again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.pair import sibling_store, split_kind

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # bytes done, bytes in all

_SOURCE = "source.json"
_KEY_DIGITS = 16


@dataclass(frozen=True)
class CacheEntry:
    """A split model of the cache.

    Attributes:
        name: Of its folder; `clear` takes it.
        folder: Where its files lie.
        core: ``NAME.core.gguf``.
        vocab: ``NAME.vocab.gguf``.
        source: Path of the model when it was split.
        n_bytes: Size of both files.
        is_new: Whether it was made by this call.
    """

    name: str
    folder: Path
    core: Path
    vocab: Path
    source: str
    n_bytes: int
    is_new: bool = field(default=False, compare=False)

    @property
    def told(self) -> str:
        """One line: what was made, where, and how to remove it."""
        return (
            f"split into {self.folder}, {self.n_bytes / 1e6:.0f} MB; "
            f"`vocabtailor cache clear {shlex.quote(self.name)}` removes it"
        )


def cache_folder() -> Path:
    """Return ``VOCABTAILOR_CACHE``, else ``vocabtailor`` in the user's cache (XDG)."""
    asked = os.environ.get("VOCABTAILOR_CACHE")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vocabtailor"


def learned_folder() -> Path:
    """Return where lies what chats and servers have learned."""
    return cache_folder() / "learned"


def split_cached(
    model_path: str | os.PathLike[str], *, here: bool = False, progress: Progress | None = None
) -> CacheEntry:
    """Return the split of a model; it is made where it is not there yet.

    Args:
        model_path: An unsplit GGUF model.
        here: Keep the split beside the model instead of in the cache.
        progress: Called with bytes read and bytes in all while the model is split.

    Raises:
        BadFileError: The model is malformed, or its split cannot be written.
        UnsupportedError: The model cannot be split; the text says why.
        VocabTailorError: The split model differs from the unsplit one.

    Example:
        >>> split_cached(MODEL).core.name.endswith(".core.gguf")
        True
    """
    source = Path(model_path)
    stem = source.name.removesuffix(".gguf")
    folder = source.parent if here else cache_folder() / f"{stem}-{_key(source)}"
    with _alone(source):
        entry = _entry(folder, stem)
        if entry is None or (here and not _is_of(entry, source)):
            from vocabtailor_gguf.split.split import split_model  # seldom needed

            split_model(source, folder, force=True, progress=progress)
            if not here:
                text = json.dumps({"source": str(source.resolve())})
                (folder / _SOURCE).write_text(text, encoding="utf-8")
            entry = _entry(folder, stem)
            assert entry is not None
            entry = replace(entry, is_new=True)
            logger.info("%s: %s", source, f"{entry.core} beside it" if here else entry.told)
    return entry


def find_pair(
    model_path: str | os.PathLike[str], vocab_path: str | os.PathLike[str] | None
) -> tuple[Path, Path]:
    """Return core and store; an unsplit model is split into the cache on its first use."""
    if vocab_path is not None:
        return Path(model_path), Path(vocab_path)
    if split_kind(model_path) is None:
        entry = split_cached(model_path)
        return entry.core, entry.vocab
    return Path(model_path), sibling_store(model_path)


def _key(source: Path) -> str:
    header = GGUFHeader(source, lenient=True)
    with open(source, "rb") as f:
        stat = os.fstat(f.fileno())
        digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} ".encode())
        digest.update(f.read(header.data_offset))
    return digest.hexdigest()[:_KEY_DIGITS]


def _is_of(entry: CacheEntry, source: Path) -> bool:
    """Whether the files beside a model are newer than it."""
    return all(p.stat().st_mtime_ns >= source.stat().st_mtime_ns for p in (entry.core, entry.vocab))


def _entry(folder: Path, stem: str) -> CacheEntry | None:
    core, vocab = folder / f"{stem}.core.gguf", folder / f"{stem}.vocab.gguf"
    if not (core.is_file() and vocab.is_file()):
        return None
    try:
        source = str(json.loads((folder / _SOURCE).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        source = ""
    n_bytes = core.stat().st_size + vocab.stat().st_size
    return CacheEntry(folder.name, folder, core, vocab, source, n_bytes)


@contextlib.contextmanager
def _alone(source: Path) -> Iterator[None]:
    """Wait until no other process splits a model on its first use."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        fd = os.open(source, os.O_RDONLY)
    except OSError as e:
        raise BadFileError(f"{source}: {e.strerror}") from e
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def entries() -> list[CacheEntry]:
    """Return what the cache holds, by name."""
    found = []
    for folder in sorted(p for p in cache_folder().glob("*") if p.is_dir()):
        stem = folder.name.rpartition("-")[0]
        entry = _entry(folder, stem)
        if entry is not None:
            found.append(entry)
    return found


def learned_files() -> list[Path]:
    """Return the files of what chats and servers have learned, by name."""
    return sorted(learned_folder().glob("*.tokens.json"))


def learned_name(path: Path) -> str:
    """Return the name of a file of `learned_files`; `clear` takes it."""
    return f"{learned_folder().name}/{path.name}"


def clear(name: str | None = None) -> list[CacheEntry]:
    """Remove an entry or a learned set, or all of them; return the entries that were removed.

    Raises:
        BadFileError: There is no such entry, or it cannot be removed.
    """
    chosen = [e for e in entries() if name in (None, e.name)]
    learned = [p for p in learned_files() if name in (None, learned_name(p))]
    if name is not None and not (chosen or learned):
        raise BadFileError(f"{cache_folder()}: no entry {name!r}; see `vocabtailor cache list`")
    try:
        for entry in chosen:
            where = entry.folder
            shutil.rmtree(where)
        for where in learned:
            where.unlink(missing_ok=True)
    except OSError as e:
        raise BadFileError(f"{where}: cannot be removed: {e.strerror}") from e
    if name is None and learned_folder().is_dir():
        shutil.rmtree(learned_folder(), ignore_errors=True)
    return chosen
