"""Small files that users hand over."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.reading import read_json, read_text

NOT_UTF8: dict[bytes, str] = {
    b"caf\xe9 is": "not UTF-8: invalid continuation byte at byte 3",
    "text".encode("utf-16"): "not UTF-8, but a text in UTF-16",
    "text".encode("utf-16-be"): "not UTF-8, but a text in UTF-16 without a byte order mark",
    "text".encode("utf-32"): "not UTF-8, but a text in UTF-32",
    gzip.compress(b"text"): "not UTF-8, but a gzip archive",
}


@pytest.mark.parametrize("content", NOT_UTF8)
def test_what_is_not_utf8_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    for read in (read_text, read_json):
        with pytest.raises(BadFileError) as e:
            read(path)
        assert str(e.value).startswith(f"{path}: ")
        assert NOT_UTF8[content] in str(e.value) or read is read_json


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbf[1]\r\n")
    assert read_text(path) == "[1]\n"
    assert read_json(path) == [1]
