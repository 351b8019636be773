"""What a file holds by its first bytes, in words for errors."""

from __future__ import annotations

import codecs

N_BYTES = 512  # that are looked at

_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_KINDS = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"{\\rtf", "an RTF document"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


def encoding_of(head: bytes) -> str | None:
    """Return the name of an encoding of text that is not UTF-8, None if there is no sign of one.

    Example:
        >>> encoding_of("a".encode("utf-16"))
        'UTF-16'
    """
    for mark, name in _ENCODINGS:
        if head.startswith(mark):
            return name
    pairs = head[: len(head) // 2 * 2]
    if len(pairs) >= 4:
        for zeros, letters in ((pairs[1::2], pairs[::2]), (pairs[::2], pairs[1::2])):
            if not any(zeros) and all(letters):
                return "UTF-16 without a byte order mark"
    return None


def kind_of_bytes(head: bytes) -> str | None:
    """Return what a file is that is no UTF-8 text, None if there is no sign of it.

    Example:
        >>> kind_of_bytes(b"PAR1....")
        'a Parquet file'
    """
    for magic, words in _KINDS:
        if head.startswith(magic):
            return words
    if len(head) > 262 and head[257:262] == b"ustar":
        return "a tar archive"
    encoding = encoding_of(head)
    return None if encoding is None else f"a text in {encoding}"
