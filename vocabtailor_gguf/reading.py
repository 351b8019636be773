"""Small files that users hand over, read whole: one descriptor, bounded time and memory."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from vocabtailor_gguf.contents import N_BYTES, encoding_of, kind_of_bytes
from vocabtailor_gguf.errors import BadFileError

MAX_BYTES = 64 << 20
MAX_VALUES = 1 << 20  # of a JSON file; the largest vocabularies have 0.9 million tokens

_CHUNK = 1 << 20  # bytes
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "FIFO",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
}


class _RepeatedKeyError(ValueError):
    pass


def read_bytes(
    path: str | os.PathLike[str], *, limit: int = MAX_BYTES, pipes: bool = False
) -> bytes:
    """Return the bytes of a file.

    Args:
        path: The file.
        limit: Most bytes that it may have.
        pipes: Whether a pipe or a device may stand for it; reading one waits for its writer.

    Raises:
        BadFileError: It cannot be read, is larger, or is no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
    if not pipes:
        flags |= getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for its writer
    data = bytearray()
    try:
        with open(os.open(path, flags), "rb", buffering=0) as f:
            found = os.fstat(f.fileno())
            if not stat.S_ISREG(found.st_mode) and not pipes:
                kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special file")
                raise BadFileError(
                    f"{path}: cannot be read: found a {kind}, expected a regular file"
                )
            size = found.st_size
            while size <= limit and (chunk := f.read(_CHUNK)):
                data += chunk
                size = len(data)
    except OSError as e:
        raise BadFileError(f"{path}: cannot be read: {e.strerror or e}") from e
    except BadFileError:
        raise
    except ValueError as e:  # a NUL in the path
        raise BadFileError(f"{path!r}: cannot be read: {e}") from e
    if size > limit:
        raise BadFileError(f"{path}: larger than {limit >> 20} MiB")
    return bytes(data)


def read_text(path: str | os.PathLike[str], *, limit: int = MAX_BYTES, pipes: bool = False) -> str:
    r"""Return the text of a UTF-8 file, without a byte order mark, with ``\n`` as line ends.

    Raises:
        BadFileError: See `read_bytes`; or it is not UTF-8.
    """
    return text_of(path, read_bytes(path, limit=limit, pipes=pipes))


def text_of(path: str | os.PathLike[str], raw: bytes) -> str:
    r"""Return the text that bytes of a file are, as `read_text` does.

    Raises:
        BadFileError: They are not UTF-8; the text begins with `path`.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise BadFileError(f"{path}: cannot be read: {_not_utf8(raw, e)}") from e
    if encoding_of(raw[:N_BYTES]):
        raise BadFileError(f"{path}: cannot be read: not UTF-8, but {kind_of_bytes(raw[:N_BYTES])}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | os.PathLike[str], *, max_values: int = MAX_VALUES) -> Any:
    """Return what a JSON file holds; of a regular file only, up to `MAX_BYTES`.

    Raises:
        BadFileError: See `read_bytes`; or it is not JSON, has too many values, or an object in it
            has a key twice.
    """
    where = Path(path)
    raw = read_bytes(where)
    # no value without one of these before it; objects in memory are far larger than their text
    if sum(map(raw.count, (b",", b"[", b"{"))) > max_values:
        raise BadFileError(f"{where}: more than {max_values:,} values")
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_object)
    except _RepeatedKeyError as e:
        raise BadFileError(f"{where}: {e}") from e
    except UnicodeDecodeError as e:
        raise BadFileError(f"{where}: not JSON: {_not_utf8(raw, e)}") from e
    except (ValueError, RecursionError) as e:
        raise BadFileError(f"{where}: not JSON: {e}") from e


def _not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    found = kind_of_bytes(raw[:N_BYTES])
    if found is not None:
        return f"not UTF-8, but {found}"
    return f"not UTF-8: {error.reason} at byte {error.start}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(f"key {key!r}: appears twice")
            seen.add(key)
    return found
