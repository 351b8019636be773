from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyModel, TinySplit
from gguf import GGUFReader
from ggufbytes import (
    ARRAY,
    BOOL,
    F32,
    F64,
    STRING,
    U8,
    U32,
    U64,
    TensorInfo,
    array,
    header,
    key,
    pad,
    string,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tinymodels import ARCHITECTURES

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.binding.types import parse_type, type_name
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader

Q8_0 = 8
MIB = 1 << 20
ARCH = key("general.architecture", STRING, "llama")


def tensors(*infos: TensorInfo, n_data: int = 128, keys: tuple[bytes, ...] = (ARCH,)) -> bytes:
    return pad(header(keys, infos)) + bytes(n_data)


def one(name: str | bytes = "t", ne: tuple[int, ...] = (32,), kind: int = 0, **more: int) -> bytes:
    """Returns a file of one tensor, by default a right one of 128 bytes."""
    return tensors(TensorInfo(name, ne, kind, **{"offset": 0, **more}))


def keyed(*keys: bytes) -> bytes:
    """Returns a file of these keys and no tensors."""
    return header(keys)


def aligned(value: int) -> bytes:
    return keyed(key("general.alignment", U32, value))


# name: file, what the error has to name, and the file's size where a hole follows
MALFORMED: dict[str, tuple[bytes, str] | tuple[bytes, str, int]] = {
    # header
    "empty": (b"", "0 bytes"),
    "23 bytes": (header()[:23], "23 bytes"),
    "magic": (header(magic=b"GGML") + bytes(8), "magic"),
    "magic, lower case": (header(magic=b"gguf") + bytes(8), "magic"),
    "version 0": (header(version=0) + bytes(8), "version: found 0"),
    "version 2": (header(version=2) + bytes(8), "version: found 2"),
    "version 4": (header(version=4) + bytes(8), "version: found 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "one key too many": (header([ARCH], n_keys=2), "key name"),
    "more keys than bytes": (header([ARCH], n_keys=4), "key count"),
    "2^64 - 1 keys": (header([ARCH], n_keys=2**64 - 1), "key count"),
    "keys above the cap": (header(n_keys=65537), "key count", 2 * MIB),
    "one tensor too many": (header([ARCH], n_tensors=1), "tensor name: needs 8 bytes"),
    "2^64 - 1 tensors": (header([ARCH], n_tensors=2**64 - 1), "tensor count"),
    "tensors above the cap": (header(n_tensors=65537), "tensor count", 4 * MIB),
    "header above 64 MiB": (
        header([key("big", STRING) + struct.pack("<Q", 65 * MIB)]),
        "big: header is larger",
        66 * MIB,
    ),
    # keys
    "key name longer than the file": (keyed(string("a", n=1000) + bytes(8)), "key name"),
    "key name of 0 bytes": (keyed(key("", U32, 1)), "key name: length 0"),
    "key name of 65536 bytes": (keyed(key("k" * 65536, U32, 1)), "key name: length 65536"),
    "key name of 2^64 - 1 bytes": (keyed(string("k", n=2**64 - 1) + bytes(9)), "key name: length"),
    "NUL in a key name": (keyed(key("a\0x", U32, 1)), "key name: byte 0x00 at 1"),
    "two names equal up to a NUL": (keyed(key("a\0x", U32, 1), key("a\0y", U32, 1)), "key name"),
    "line feed in a key name": (keyed(key("a\nb", U32, 1)), "key name: byte 0x0a"),
    "DEL in a key name": (keyed(key("a\x7f", U32, 1)), "key name: byte 0x7f"),
    "UTF-8 in a key name": (keyed(key("\u00e9", U32, 1)), "key name: byte 0xc3"),
    "key twice": (keyed(key("twin", U32, 1), key("twin", U32, 2)), "key twin: appears twice"),
    "value type 13": (keyed(key("odd", 13) + bytes(8)), "key odd: unknown value type 13"),
    "value type 2^32 - 1": (keyed(key("odd", 2**32 - 1) + bytes(8)), "key odd: unknown value type"),
    "no value": (keyed(key("cut.off.key", U32)), "cut.off.key"),
    "half a value": (keyed(key("half", F64) + bytes(7)), "half"),
    "bool of 2": (keyed(key("flag", BOOL) + b"\2"), "key flag: bool"),
    "bool of 2 in an array": (
        keyed(key("flags", ARRAY) + struct.pack("<IQ", BOOL, 3) + b"\1\0\2"),
        "key flags: bool",
    ),
    "string longer than the rest": (keyed(key("text", STRING) + string("abc", n=4)), "text"),
    "string of 2^64 - 1 bytes": (keyed(key("text", STRING) + string("abc", n=2**64 - 1)), "text"),
    "array longer than the rest": (keyed(array("list", U32, [1, 2], n=3)), "key list: 3 elements"),
    "array whose size wraps": (keyed(array("list", U64, [0], n=2**61)), "key list: "),
    "array of 2^64 - 1 bytes": (keyed(array("list", U8, [0], n=2**64 - 1)), "key list: "),
    "49 bytes and 2^60 strings": (keyed(array("l", STRING, [], n=2**60)), "key l: "),
    "string array longer than the rest": (keyed(array("list", STRING, ["", ""], n=3)), "list"),
    "string in an array longer than the rest": (
        keyed(key("list", ARRAY) + struct.pack("<IQ", STRING, 1) + string("ab", n=3)),
        "list",
    ),
    "nested array": (keyed(array("nest", ARRAY, [], n=1) + bytes(24)), "key nest: nested array"),
    "array of type 13": (keyed(array("list", 13, [], n=1) + bytes(8)), "key list: unknown value"),
    **{f"alignment {n}": (aligned(n), "general.alignment") for n in (0, 1, 4, 24, 33, 2**17)},
    "alignment 2^31": (aligned(2**31), "general.alignment"),
    "alignment as u64": (keyed(key("general.alignment", U64, 32)), "key general.alignment: type"),
    "alignment as f32": (keyed(key("general.alignment", F32, 32.0)), "key general.alignment: type"),
    # tensors
    "tensor name of 0 bytes": (one(""), "tensor name: length 0"),
    "tensor name of 64 bytes": (one("n" * 64), "tensor name: length 64"),
    "NUL in a tensor name": (one("a\0b"), "tensor name: byte 0x00"),
    "UTF-8 in a tensor name": (one("\u00e9"), "tensor name: byte 0xc3"),
    "tensor twice": (
        tensors(TensorInfo("twin", (16,)), TensorInfo("twin", (16,))),
        "tensor twin: appears twice",
    ),
    "0 dimensions": (one("flat", (), n_dims=0), "tensor flat: 0 dimensions"),
    "5 dimensions": (one("deep", (2, 2, 2, 2, 2)), "tensor deep: 5 dimensions"),
    "2^32 - 1 dimensions": (one("deep", n_dims=2**32 - 1), "tensor deep: "),
    "dimension of 0": (one("none", (32, 0)), "tensor none: dimension 1 is 0"),
    "negative dimension": (one("minus", (2**64 - 32,)), "tensor minus: dimension 0"),
    "dimension of 2^63": (one("huge", (2**63,)), "tensor huge: dimension 0"),
    "product that wraps to 0": (one("wrap", (2**32, 2**32)), "tensor wrap: "),
    "product that wraps to 128": (one("wrap", (2**38 + 1, 2**26, 32)), "tensor wrap: "),
    "bytes that wrap": (one("wrap", (2**40, 2**22)), "tensor wrap: "),
    "padding that wraps": (one("wrap", (2**40 - 1, 2**22)), "tensor wrap: "),
    "type that was removed": (one("old", kind=4), "tensor old: unknown type 4"),
    "type 1000": (one("new", kind=1000), "tensor new: unknown type 1000"),
    "type 2^32 - 1": (one("new", kind=2**32 - 1), "tensor new: unknown type"),
    "rows of half a block": (one("half", (48, 2), Q8_0), "tensor half: rows of 48 values"),
    "offset that is not aligned": (one("off", offset=1), "tensor off: offset 1, expected 0"),
    "first offset not 0": (one("off", offset=32), "tensor off: offset 32, expected 0"),
    "offset of 2^64 - 32": (one("off", offset=2**64 - 32), "tensor off: offset"),
    "tensors that overlap": (
        tensors(TensorInfo("a", (16,), offset=0), TensorInfo("b", (16,), offset=32)),
        "tensor b: offset 32, expected 64",
    ),
    "a hole between tensors": (
        tensors(TensorInfo("a", (8,), offset=0), TensorInfo("b", (16,), offset=64)),
        "tensor b: offset 64, expected 32",
    ),
    "tensors in another order": (
        tensors(TensorInfo("a", (16,), offset=64), TensorInfo("b", (16,), offset=0)),
        "tensor a: offset 64, expected 0",
    ),
    "data beyond the file": (one("long", (33,)), "tensor long: ends at byte"),
    "no data": (tensors(TensorInfo("bare", (32,)), n_data=0), "tensor bare: ends at byte"),
    "terabytes of data": (one("far", (2**38,)), "tensor far: ends at byte"),
    "bytes after the data": (one() + bytes(32), "32 bytes after the last tensor"),
    "a byte after the data": (one() + b"\0", "1 bytes after the last tensor"),
    "a byte after the keys": (keyed(ARCH) + b"\0", "after the last tensor"),
}


def _write(folder: Path, name: str) -> Path:
    data, _, *size = MALFORMED[name]
    path = folder / "bad.gguf"
    with open(path, "wb") as f:
        f.write(data)
        f.truncate(max(len(data), *size, 0))
    return path


def test_files_of_the_builder_are_right_where_nothing_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    for data in (
        header(),
        pad(header()),
        keyed(ARCH, array("list", U64, [1, 2]), array("none", STRING, []), key("b", BOOL, True)),
        one(),
        one("n" * 63),
        keyed(key("k" * 65535, U32, 1)),
        tensors(TensorInfo("a", (8,)), TensorInfo("b", (4, 2, 2, 2), 1), n_data=96),
        *(aligned(n) for n in (8, 65536)),
    ):
        path.write_bytes(data)
        assert GGUFHeader(path).file_size == len(data)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_header(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path, name)
    with pytest.raises(BadFileError) as e:
        GGUFHeader(path)
    assert str(e.value).startswith(f"{path}: ")
    assert MALFORMED[name][1] in str(e.value)
    with pytest.raises(BadFileError):
        VocabStore(path)


_CHILD = """
import json, resource, sys
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.binding.store import VocabStore

good, *bad = sys.argv[1:]
GGUFHeader(good)
with open("/proc/self/statm") as f:
    in_use = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (256 << 20),) * 2)
refused = 0
for path in bad:
    for kind in (GGUFHeader, VocabStore):
        try:
            kind(path)
        except BadFileError:
            refused += 1
print(json.dumps(refused))
"""


@pytest.mark.fuzz
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by way of /proc")
def test_malformed_headers_take_neither_memory_nor_time(tmp_path: Path) -> None:
    good = tmp_path / "good.gguf"
    good.write_bytes(one())
    bad = []
    for i, name in enumerate(MALFORMED):
        bad.append(str(_write(tmp_path, name).rename(tmp_path / f"{i}.gguf")))
    command = [sys.executable, "-c", _CHILD, str(good), *bad]
    done = subprocess.run(command, capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 2 * len(bad)


def _cuts(path: Path, whole: GGUFHeader) -> Iterator[int]:
    """Yields sizes below that of the file: some in the data, then all in the header."""
    yield path.stat().st_size - 1
    for tensor in reversed(whole.tensors.values()):
        yield from (tensor.offset + n for n in (tensor.n_bytes - 1, tensor.n_bytes // 2, 1, 0))
    yield from range(whole.data_offset, -1, -1)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["qwen2", "llama-tied"])
def test_truncation(name: str, tiny_split: TinySplit, tmp_path: Path) -> None:
    files = tiny_split(name)
    for source, kind in ((files.core, GGUFHeader), (files.vocab, VocabStore)):
        path = Path(shutil.copy(source, tmp_path / "cut.gguf"))
        whole = GGUFHeader(path)
        for size in sorted(set(_cuts(path, whole)), reverse=True):
            with open(path, "r+b") as f:
                f.truncate(size)
            with pytest.raises(BadFileError, match=r"cut\.gguf: "):
                kind(path)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_appended_bytes(name: str, tiny_split: TinySplit, tmp_path: Path) -> None:
    files = tiny_split(name)
    for source in (files.core, files.vocab):
        path = Path(shutil.copy(source, tmp_path / "longer.gguf"))
        for n in (1, 31, 32, 4096):
            with open(path, "r+b") as f:
                f.truncate(source.stat().st_size + n)
            with pytest.raises(BadFileError, match="bytes after the last tensor"):
                GGUFHeader(path)


@pytest.mark.fuzz
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_flipped_bits(
    data: st.DataObject, tiny_split: TinySplit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    source = tiny_split("gemma2").vocab
    damaged = bytearray(source.read_bytes())
    bit = data.draw(st.integers(0, 8 * GGUFHeader(source).data_offset - 1), label="bit")
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        store = VocabStore(path)
    except VocabTailorError:
        return
    with store:
        rows = store.rows([0, store.n_vocab - 1])
    assert rows.shape == (2, store.n_embd)
    found = GGUFHeader(path)
    assert [t.ne for t in found.tensors.values()] == [(store.n_embd, store.n_vocab)]
    for k in found.keys.values():
        k.decode()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gguf_reader_sees_the_same(name: str, tiny: TinyModel, tiny_split: TinySplit) -> None:
    for path in (tiny(name), tiny_split(name).core, tiny_split(name).vocab):
        ours, theirs = GGUFHeader(path), GGUFReader(path)
        assert ours.data_offset == theirs.data_offset
        assert ours.alignment == theirs.alignment
        assert list(ours.keys) == [k for k in theirs.fields if not k.startswith("GGUF.")]
        for k, key_ in ours.keys.items():
            expected = theirs.fields[k].contents()
            found = key_.decode()
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == expected
        assert list(ours.tensors) == [t.name for t in theirs.tensors]
        for t in theirs.tensors:
            mine = ours.tensors[t.name]
            assert mine.ne == tuple(t.shape.tolist())
            assert (mine.type, mine.offset, mine.n_bytes) == (
                t.tensor_type,
                t.data_offset,
                t.n_bytes,
            )


def test_types_by_name() -> None:
    assert type_name(parse_type("q4_k")) == "Q4_K"
    assert type_name(4) == "type 4"
    with pytest.raises(ValueError, match="Q9_9"):
        parse_type("Q9_9")
