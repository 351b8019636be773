"""Token sets: files, checks, frequent tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vocabtailor_gguf import TokenSet, VocabStore
from vocabtailor_gguf.errors import BadFileError, MismatchError, TokenIdError
from vocabtailor_gguf.profiling.frequent import documentation_texts, frequent_token_set


def test_ids_are_sorted_and_unique() -> None:
    chosen = TokenSet([5, 1, 5, 3])
    assert chosen.ids.tolist() == [1, 3, 5]
    assert chosen.ids.dtype == np.int32
    assert len(chosen) == 3
    with pytest.raises(ValueError, match="read-only"):
        chosen.ids[0] = 9


@pytest.mark.parametrize("ids", [[], [-1], [1.5], [[1]], [2**31], ["a"], [True]], ids=str)
def test_bad_ids(ids: Any) -> None:
    with pytest.raises(TokenIdError, match="token"):
        TokenSet(ids)


def test_a_file_gives_the_set_back(tmp_path: Path) -> None:
    path = tmp_path / "it.tokens.json"
    TokenSet([7, 3], "ab" * 32, {"corpus": "è"}).save(path)
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == "vocabtailor.tokens"
    again = TokenSet.load(path)
    assert again.ids.tolist() == [3, 7]
    assert again.tokenizer == "ab" * 32
    assert again.provenance == {"corpus": "è"}
    assert [p.name for p in tmp_path.iterdir()] == ["it.tokens.json"]


def test_the_reference_implementations_json(tmp_path: Path) -> None:
    path = tmp_path / "static.json"
    path.write_text(json.dumps({"Ġthe": 262, "!": 0}), encoding="utf-8")
    assert TokenSet.load(path).ids.tolist() == [0, 262]


GOOD = {"format": "vocabtailor.tokens", "version": 1, "tokenizer": None, "ids": [1, 2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "expected an object"),
        ("{}", "format"),
        ('{"a": 1, "b": true}', "format"),
        ('{"a": 1, "b": 1}', "twice"),
        ('{"a": -1}', "ids"),
        (json.dumps({**GOOD, "format": "other"}), "format"),
        (json.dumps({**GOOD, "version": 2}), "version"),
        (json.dumps({**GOOD, "version": True}), "version"),
        (json.dumps({**GOOD, "ids": []}), "empty"),
        (json.dumps({**GOOD, "ids": None}), "list of integers"),
        (json.dumps({**GOOD, "ids": [1, 1]}), "twice"),
        (json.dumps({**GOOD, "ids": [1, -2]}), "ids"),
        (json.dumps({**GOOD, "ids": [1, 2.0]}), "list of integers"),
        (json.dumps({**GOOD, "ids": [1, True]}), "list of integers"),
        (json.dumps({**GOOD, "ids": [10**30]}), "ids"),
        (json.dumps({**GOOD, "tokenizer": 5}), "wrong type"),
        (json.dumps({**GOOD, "provenance": []}), "wrong type"),
        (b"\xff\xfe", "not JSON"),
        ('{"a": 1, "a": 2}', "key 'a': appears twice"),
        (json.dumps(GOOD)[:-1] + ', "ids": [3]}', "key 'ids': appears twice"),
        (json.dumps({**GOOD, "provenance": {}})[:-3] + '{"x": 1, "x": 2}}', "key 'x'"),
        ("[" + "0," * (1 << 20) + "0]", "more than 1,048,576 values"),
        ('{"ids": [' + "[" * (1 << 20), "more than 1,048,576 values"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadFileError, match=message) as raised:
        TokenSet.load(path)
    assert str(path) in str(raised.value)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert TokenSet.load(path).ids.tolist() == [1, 2]


_BOUNDED = """
import resource, sys
import numpy
from vocabtailor_gguf import TokenSet, VocabTailorError
from vocabtailor_gguf.process import process_memory

resource.setrlimit(resource.RLIMIT_AS, (process_memory().data + (4 << 30),) * 2)
try:
    TokenSet.load(sys.argv[1])
except VocabTailorError as e:
    print(e)
print(process_memory().peak >> 20)
"""


def _load_elsewhere(path: Path) -> tuple[list[str], int]:
    """Return what was printed and the peak of memory in MiB; a hang ends in a timeout."""
    command = [sys.executable, "-c", _BOUNDED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    *text, peak = done.stdout.splitlines()
    return text, int(peak)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no FIFO")
def test_files_that_never_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, kind in ((fifo, "FIFO"), (Path("/dev/zero"), "device")):
        text, peak = _load_elsewhere(path)
        assert text == [f"{path}: cannot be read: found a {kind}, expected a regular file"]
        assert peak < 200
    sparse = tmp_path / "sparse.json"
    with open(sparse, "wb") as f:
        f.truncate(1 << 40)
    text, peak = _load_elsewhere(sparse)
    assert text == [f"{sparse}: larger than 64 MiB"]
    assert peak < 200


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory in /proc")
def test_the_largest_files_cost_little(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    line = json.dumps({f"token {i:046}": i for i in range(1_000_000)})
    assert (60 << 20) < len(line) < (64 << 20)
    path.write_text(line, encoding="utf-8")
    text, peak = _load_elsewhere(path)
    assert text == []
    assert peak < 600
    path.write_text("[" + "{}," * ((1 << 19) - 2) + "{}]", encoding="utf-8")
    text, peak = _load_elsewhere(path)
    assert text == [f"{path}: found list, expected an object"]
    assert peak < 400


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BadFileError, match="cannot be read"):
            TokenSet.load(path)
    with pytest.raises(BadFileError, match="cannot be written"):
        TokenSet([1]).save(tmp_path / "none" / "a.json")


def test_a_set_is_checked_against_a_store(tiny_split: Callable[[str], Any]) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        TokenSet([1, store.n_vocab - 1], store.tokenizer_sha256).check(store)
        with pytest.raises(TokenIdError, match=str(store.n_vocab)):
            TokenSet([1, store.n_vocab]).check(store)
        with pytest.raises(MismatchError, match="tokenizer"):
            TokenSet([1], "0" * 64).check(store)


def test_frequent_tokens(tiny_split: Callable[[str], Any]) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        texts = [("aaaa b", 1.0), ("zz", 5.0)]
        few = frequent_token_set(store, texts, 2, source="here")
        many = frequent_token_set(store, texts, 1000, source="here")
        assert len(few) == 2
        assert set(few.ids) < set(many.ids)
        assert few.tokenizer == store.tokenizer_sha256
        with pytest.raises(ValueError, match="no text"):
            frequent_token_set(store, [], 2, source="nothing")


def test_documentation_texts_are_long_enough() -> None:
    assert sum(len(text) for text, _ in documentation_texts()) > 1_400_000
