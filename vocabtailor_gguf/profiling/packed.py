"""Files that may be compressed: by gzip, bzip2, xz or Zstandard, in one part or several."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from typing import IO, Any

from vocabtailor_gguf.errors import BadFileError, UnsupportedError

SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard"}
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\0": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
}
_CHUNK = 1 << 18  # bytes


class Unpacked(io.BufferedIOBase):
    """The bytes of a file, decompressed where its first bytes or its name say so.

    Args:
        name: A path, or "-" for standard input, which is not closed.

    Raises:
        BadFileError: The file cannot be read, when it is opened or later.
        UnsupportedError: It needs a package that is not installed.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.n_read = 0  # bytes given so far
        try:
            if name == "-" and sys.stdin is None:
                raise BadFileError("-: standard input is closed")
            self._file = sys.stdin.buffer if name == "-" else open(name, "rb")
            file: Any = self._file
            raw = file if hasattr(file, "peek") else io.BufferedReader(file)
            kind = _kind(name, raw.peek(8))
            self._parts = self._decompressed(kind, raw)
        except OSError as e:
            raise BadFileError(f"{name}: cannot be read: {e.strerror or e}") from e
        except ValueError as e:  # a NUL in the path
            raise BadFileError(f"{name!r}: cannot be read: {e}") from e
        self._rest = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def peek(self) -> bytes:
        """Return the bytes that come next, some of them, b"" only at the end."""
        if not self._rest:
            try:
                self._rest = next(self._parts, b"")
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as e:
                raise BadFileError(f"{self._name}: cannot be read: {_words(e)}") from e
        return self._rest

    def read1(self, size: int | None = -1) -> bytes:
        """Return at most `size` bytes, b"" only at the end."""
        found = self.peek()
        n = len(found) if size is None or size < 0 else size
        self._rest = found[n:]
        self.n_read += len(found[:n])
        return found[:n]

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        wanted = sys.maxsize if size is None or size < 0 else size
        parts = []
        while wanted and (part := self.read1(wanted)):
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if not self.closed and self._name != "-" and hasattr(self, "_file"):
            self._file.close()
        super().close()

    def _decompressed(self, kind: str | None, raw: io.BufferedReader) -> Iterator[bytes]:
        if kind == ".zst":
            return _zstandard_parts(self._name, raw)
        opened: Any = raw
        if kind == ".gz":
            opened = gzip.GzipFile(fileobj=raw, mode="rb")
        elif kind == ".bz2":
            opened = bz2.BZ2File(raw)
        elif kind == ".xz":
            opened = lzma.LZMAFile(raw)
        return iter(lambda: opened.read1(_CHUNK), b"")


def _kind(name: str, head: bytes) -> str | None:
    """Return the suffix of a file's compression: by its bytes, else by its name."""
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    return next((s for s in SUFFIXES if name.lower().endswith(s)), None)


def _zstandard_parts(name: str, raw: IO[bytes]) -> Iterator[bytes]:
    """The package's own stream takes a file that is cut off for one that ends."""
    try:
        import zstandard
    except ImportError as e:
        raise missing(name, "zstandard") from e

    def parts() -> Iterator[bytes]:
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        begun = False
        data = b""
        while data or (data := raw.read(_CHUNK)):
            if unpacker.eof:
                unpacker = zstandard.ZstdDecompressor().decompressobj()
            try:
                part = unpacker.decompress(data)
            except zstandard.ZstdError as e:
                raise OSError(str(e)) from e
            begun = True
            data = unpacker.unused_data if unpacker.eof else b""
            if part:
                yield part
        if begun and not unpacker.eof:
            raise EOFError("the file ended before the end of a frame")

    return parts()


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def missing(name: str, package: str) -> UnsupportedError:
    """Return the error for a package that is not installed."""
    return UnsupportedError(
        f"{name}: needs the package {package}: pip install 'vocabtailor_gguf[profile]'"
    )
