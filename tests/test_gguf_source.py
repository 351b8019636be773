"""Models that llama.cpp loads though a core or a store may not be like them."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import TinyModel, TinySplit, everything_in
from exactpair import COMMON, PROMPTS, take
from gguf import GGUFReader
from ggufbytes import (
    ARRAY,
    BOOL,
    F32,
    I32,
    STRING,
    U8,
    U16,
    U32,
    U64,
    TensorInfo,
    array,
    header,
    key,
    pad,
    padded,
    rebuilt,
    string,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp import Llama

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import BadFileError, UnsupportedError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader, first_string
from vocabtailor_gguf.gguf.keys import ODD_KEYS
from vocabtailor_gguf.gguf.source import MAX_FILLER, read_source, strings
from vocabtailor_gguf.split.merge import merge_model
from vocabtailor_gguf.split.split import split_model
from vocabtailor_gguf.split.verify import verify_model

MIB = 1 << 20
N_VOCAB = 432  # of llama-tied
ALIGNMENT = "general.alignment"


def odd(
    source: Path,
    *,
    keys: Iterable[bytes] = (),
    instead: dict[str, bytes] | None = None,
    first: Iterable[bytes] = (),
    shape: Callable[[TensorInfo], TensorInfo] = lambda t: t,
    version: int = 3,
    alignment: int = 32,
    filler: int = 0,
    tail: bytes | None = None,
) -> bytes:
    """Returns a right file's bytes with something odd about them."""
    found = GGUFHeader(source)
    records = {name: k.record for name, k in found.keys.items()} | (instead or {})
    tensors = list(GGUFReader(source).tensors)
    infos = [TensorInfo(t.name, tuple(found.tensors[t.name].ne), t.tensor_type) for t in tensors]
    at = 0
    placed = []
    for info in infos:
        placed.append(shape(info)._replace(offset=at))
        at = padded(at + info.n_bytes, alignment)

    def fill(data: bytes) -> bytes:
        return data + bytes([filler]) * (padded(len(data), alignment) - len(data))

    out = fill(header([*first, *records.values(), *keys], placed, version=version))
    for t in tensors[:-1]:
        out += fill(t.data.tobytes())
    last = tensors[-1].data.tobytes()
    return out + (fill(last) if tail is None else last + tail)


def named(of: str, **changes: Any) -> Callable[[TensorInfo], TensorInfo]:
    return lambda t: t._replace(**changes) if t.name == of else t


def more_dims(t: TensorInfo) -> TensorInfo:
    return t._replace(ne=(*t.ne, 1, 1)[:4]) if t.name in ("token_embd.weight",) else t


FLAGS = key("flags", ARRAY) + struct.pack("<IQ", BOOL, 3) + b"\2\0\xff"
SCORES, TYPES = "tokenizer.ggml.scores", "tokenizer.ggml.token_type"
ADD_BOS = "tokenizer.ggml.add_bos_token"
ARCH, MODEL = "general.architecture", "tokenizer.ggml.model"

# what is odd, and keys of the store that keep it
ODD: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "version 2": ({"version": 2}, {"version"}),
    "an alignment of its own": (
        {"alignment": 64, "keys": [key(ALIGNMENT, U32, 64)]},
        set(),
    ),
    "alignment 2^17": (
        {"alignment": 1 << 17, "keys": [key(ALIGNMENT, U32, 1 << 17)]},
        {"alignment", "odd_keys"},
    ),
    # names and values of keys
    "a name in UTF-8": ({"keys": [key("g\u00e9n\u00e9ral.note", STRING, "x")]}, {"odd_keys"}),
    "a name in Latin-1": ({"keys": [key(b"g\xe9n", STRING, "x")]}, {"odd_keys"}),
    "a name with a line feed": ({"keys": [key("a\nb", U32, 1)]}, {"odd_keys"}),
    "a name with a NUL": ({"keys": [key("general.x\0y", U32, 1)]}, {"odd_keys"}),
    "a name that begins with a NUL": ({"keys": [key("\0", U32, 1)]}, {"odd_keys"}),
    "names equal up to a NUL": (
        {"keys": [key("twin", U32, 1), key("twin\0x", STRING, "2"), key("twin\0y", U32, 3)]},
        {"odd_keys"},
    ),
    "a name of 65536 bytes": ({"keys": [key("k" * 65536, U32, 1)]}, {"odd_keys"}),
    "a bool of 2": ({"keys": [key("flag", BOOL) + b"\2"]}, {"odd_keys"}),
    "a bool of 2 in an array": ({"keys": [FLAGS]}, {"odd_keys"}),
    "a bool that llama.cpp reads": (
        {"instead": {ADD_BOS: key(ADD_BOS, BOOL) + b"\xff"}},
        {"odd_keys"},
    ),
    "bad UTF-8 in a string": ({"keys": [key("general.author", STRING, b"Jos\xe9 \xff")]}, set()),
    "a NUL in a string": ({"keys": [key("general.note", STRING, "a\0b")]}, set()),
    "a NUL in the architecture": ({"instead": {ARCH: key(ARCH, STRING, "llama\0x")}}, {"odd_keys"}),
    "a NUL in the tokenizer's kind": (
        {"instead": {MODEL: key(MODEL, STRING, "llama\0x")}},
        {"odd_keys"},
    ),
    "a string of 3 MiB": ({"keys": [key("general.readme", STRING, "a" * 3 * MIB)]}, set()),
    "an empty array": ({"keys": [array("general.tags", STRING, [])]}, set()),
    "keys that look like ours": (
        {
            "keys": [
                key("vocabtailor.pair_id", STRING, "x"),
                key("vocabtailor.source.version", U32, 9),
                key("vocabtailor.source.odd_keys", U8, 1),
            ]
        },
        {"odd_keys"},
    ),
    "one shard of one": (
        {"keys": [key("split.count", U16, 1), key("split.no", U16, 0)]},
        set(),
    ),
    "a token id of another type": (
        {"keys": [key("tokenizer.ggml.my_token_id", I32, -1)]},
        {"odd_keys"},
    ),
    "more scores than tokens": (
        {"instead": {SCORES: array(SCORES, F32, [0.5] * (N_VOCAB + 9))}},
        {"odd_keys"},
    ),
    "integers as scores": (
        {"instead": {SCORES: array(SCORES, I32, range(-N_VOCAB, 0))}},
        {"odd_keys"},
    ),
    "more token types than tokens": (
        {"instead": {TYPES: array(TYPES, I32, [1] * (N_VOCAB + 9))}},
        {"odd_keys"},
    ),
    # tensors
    "a tensor's name with a NUL": (
        {"shape": named("blk.0.ffn_up.weight", name="blk.0.ffn_up.weight\0x")},
        {"odd_tensors"},
    ),
    "the embedding's name with a NUL": (
        {"shape": named("token_embd.weight", name="token_embd.weight\0\xff")},
        {"odd_tensors"},
    ),
    "dimensions of 1": ({"shape": more_dims}, {"odd_tensors"}),
    # bytes that belong to no tensor
    "padding that is not 0": ({"filler": 0x55, "alignment": 32}, {"padding"}),
    "wide padding that is not 0": (
        {"filler": 0xFF, "alignment": 4096, "keys": [key(ALIGNMENT, U32, 4096)]},
        {"padding"},
    ),
    "no padding at the end": (
        {"tail": b"", "alignment": 4096, "keys": [key(ALIGNMENT, U32, 4096)]},
        {"size"},
    ),
    "a byte after the last tensor": ({"tail": b"\0"}, {"size"}),
    "4 KiB of zeros after the last tensor": ({"tail": bytes(4096)}, {"size"}),
    "an archive after the last tensor": (
        {"tail": b"PK\5\6" + bytes(18)},
        {"size", "padding"},
    ),
    "8 MiB of zeros, then a byte": ({"tail": bytes(8 * MIB) + b"x"}, {"size", "padding"}),
    "everything": (
        {
            "version": 2,
            "first": [key("\xe9\0", U64, 1), key("flag", BOOL) + b"\7"],
            "keys": [key(ALIGNMENT, U32, 1 << 17)],
            "alignment": 1 << 17,
            "shape": named("blk.1.ffn_up.weight", name="blk.1.ffn_up.weight\0"),
            "filler": 1,
            "tail": b"\1" * 100 + bytes(100),
        },
        {"version", "alignment", "odd_keys", "odd_tensors", "padding", "size"},
    ),
}


def kept(path: Path) -> set[str]:
    plain = {"sha256", "tied", "key_order", "tensor_order"}
    prefix = "vocabtailor.source."
    names = {k.removeprefix(prefix) for k in GGUFHeader(path).keys if k.startswith(prefix)}
    return names - plain


@pytest.mark.parametrize("name", ODD)
def test_what_stock_loads_splits_and_merges(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    changes, keys = ODD[name]
    model = tmp_path / "odd.gguf"
    model.write_bytes(odd(tiny("llama-tied"), **changes))
    files = split_model(model)  # proved against llama.cpp on the odd file
    assert kept(files.vocab) == keys
    merged = merge_model(files.core, files.vocab, tmp_path / "merged.gguf")
    assert merged.identical
    assert merged.path.read_bytes() == model.read_bytes()
    assert verify_model(files.core).tensors == ("token_embd.weight",)


@pytest.mark.parametrize("name", ODD)
def test_what_stock_loads_runs(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    model = tmp_path / "odd.gguf"
    model.write_bytes(odd(tiny("llama-tied"), **ODD[name][0]))
    files = split_model(model)
    records = strings(GGUFHeader(files.vocab), ODD_KEYS)
    odd_names = {first_string(r).split(b"\0")[0].decode(errors="replace") for r in records}
    with (
        contextlib.closing(Llama(str(model), **COMMON)) as stock,
        contextlib.closing(TailoredLlama(files.core, **COMMON)) as ours,
    ):
        assert take(ours, PROMPTS[0], 12) == take(stock, PROMPTS[0], 12)
        assert set(ours.metadata) <= set(stock.metadata) or not stock.metadata
        for key_name in set(stock.metadata) - odd_names:
            assert ours.metadata[key_name] == stock.metadata[key_name]
        assert not any(k.startswith("vocabtailor.") for k in ours.metadata)


@pytest.mark.parametrize("name", ["everything", "padding that is not 0"])
def test_odd_files_with_a_new_type(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    model = tmp_path / "odd.gguf"
    model.write_bytes(odd(tiny("llama-tied"), **ODD[name][0]))
    files = split_model(model, None, "q4_0")
    merged = merge_model(files.core, files.vocab, tmp_path / "merged.gguf")
    assert not merged.identical
    again = split_model(merged.path)
    assert merge_model(again.core, again.vocab, tmp_path / "again.gguf").identical
    assert verify_model(files.core, source=model).proof is not None


def test_odd_models_work_unsplit(
    tiny: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "odd.gguf"
    model.write_bytes(odd(tiny("llama-tied"), **ODD["everything"][0]))
    for only in (False, True):
        with (
            contextlib.closing(Llama(str(model), vocab_only=only, **COMMON)) as stock,
            contextlib.closing(TailoredLlama(model, vocab_only=only, **COMMON)) as ours,
        ):
            assert ours.tokenize(b"the cat") == stock.tokenize(b"the cat")
            if not only:
                assert take(ours, PROMPTS[0], 12) == take(stock, PROMPTS[0], 12)
    asked = ["-p", "the cat", "-n", "2", "-c", "64", "-t", "1", "--json"]
    assert main(["run", "-m", str(model), *asked]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "exact"


def test_sources_as_they_are_read(tiny: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(odd(tiny("llama-tied"), **ODD["everything"][0]))
    found = read_source(path)
    plain = GGUFHeader(tiny("llama-tied"))
    assert found.key_order[0] == "\xe9\0".encode()
    assert found.header.get("flag") is True
    assert found.own["vocabtailor.source.alignment"] == 1 << 17
    assert found.header.get(ALIGNMENT) == found.header.alignment == 32
    assert [t.ne for t in found.header.tensors.values()] == [t.ne for t in plain.tensors.values()]
    with pytest.raises(BadFileError, match="version: found 2, expected 3"):
        GGUFHeader(path)


# what llama.cpp refuses, or what would cost too much; never taken, whoever wrote the file
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "version 1": ({"version": 1}, "version: found 1, expected 2 or 3"),
    "version 4": ({"version": 4}, "version: found 4, expected 2 or 3"),
    "alignment 0": ({"keys": [key(ALIGNMENT, U32, 0)]}, "general.alignment: 0, expected a power"),
    "alignment 24": ({"keys": [key(ALIGNMENT, U32, 24)]}, "expected a power of two"),
    "alignment as u64": ({"keys": [key(ALIGNMENT, U64, 32)]}, "general.alignment: type"),
    "an empty name": ({"keys": [key("", U32, 1)]}, "key name: length 0"),
    "a key twice": ({"keys": [key("twin", U32, 1), key("twin", U32, 1)]}, "twin: appears twice"),
    "a nested array": ({"keys": [array("nest", ARRAY, [], n=1) + bytes(24)]}, "nested array"),
    "value type 13": ({"keys": [key("odd", 13) + bytes(8)]}, "unknown value type 13"),
    "an escape in a name": ({"keys": [key("\x1b[2J", 13) + bytes(8)]}, "?[2J: unknown value type"),
    "a tensor's name in UTF-8": (
        {"shape": named("blk.0.ffn_up.weight", name="blk.0.ffn_\u00fcp.weight")},
        "tensor name 'blk.0.ffn_\u00fcp.weight': expected printable ASCII",
    ),
    "a tensor's name that begins with a NUL": (
        {"shape": named("blk.0.ffn_up.weight", name="\0x")},
        "tensor name '': expected printable ASCII",
    ),
    "a tensor twice up to a NUL": (
        {"shape": named("blk.0.ffn_up.weight", name="blk.0.ffn_down.weight\0")},
        "tensor blk.0.ffn_down.weight: appears twice",
    ),
    "junk beyond all bounds": ({"tail": b"x" * (MAX_FILLER + 1)}, "more than 16 MiB that belong"),
    "junk after much nothing": ({"tail": bytes(MAX_FILLER) + b"x"}, "more than 16 MiB that"),
    "another of several shards": ({"keys": [key("split.count", U16, 3)]}, "is one of 3 shards"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stays_refused(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    model = tmp_path / "odd.gguf"
    model.write_bytes(odd(tiny("llama-tied"), **changes))
    with pytest.raises((BadFileError, UnsupportedError)) as e:
        split_model(model)
    assert str(e.value).startswith(f"{model}: ")
    assert message in str(e.value)
    assert everything_in(tmp_path) == ["odd.gguf"]


@pytest.mark.parametrize("n", [1, 4])
def test_alignments_that_llama_cpp_trips_over(n: int, tiny: TinyModel, tmp_path: Path) -> None:
    model = tmp_path / "odd.gguf"
    model.write_bytes(odd(tiny("llama-tied"), alignment=n, keys=[key(ALIGNMENT, U32, n)]))
    with pytest.raises(VocabTailorError, match=r"llama\.cpp itself cannot run this model"):
        split_model(model)
    assert everything_in(tmp_path) == ["odd.gguf"]


@pytest.mark.parametrize("n", [1 << 25, 1 << 31])
def test_an_alignment_that_would_cost_memory(n: int, tmp_path: Path) -> None:
    path = tmp_path / "wide.gguf"
    path.write_bytes(header([key(ALIGNMENT, U32, n)], [TensorInfo("t", (32,), offset=0)]))
    os.truncate(path, n + 128)
    with pytest.raises(UnsupportedError, match=f"key general.alignment: {n}, expected at most"):
        split_model(path)


def test_zeros_without_end_cost_no_memory(tiny: TinyModel, tmp_path: Path) -> None:
    """As a file system leaves them that has reserved more room than was needed."""
    path = tmp_path / "long.gguf"
    path.write_bytes(odd(tiny("llama-tied")))
    os.truncate(path, 256 * MIB)
    found = read_source(path)
    assert found.own == {"vocabtailor.source.size": 256 * MIB}


OWN = "vocabtailor.source."


@pytest.mark.parametrize(
    "keys",
    [
        {"version": key(OWN + "version", U32, 9)},
        {"version": key(OWN + "version", U64, 2**40)},
        {"version": key(OWN + "version", STRING, "2")},
        {"alignment": key(OWN + "alignment", U32, 3)},
        {"alignment": key(OWN + "alignment", U32, 2**31)},
        {"alignment": key(OWN + "alignment", U64, 2**63)},
        {"size": key(OWN + "size", U64, 2**63)},
        {"size": key(OWN + "size", U64, 2**61)},
        {"padding": key(OWN + "padding", STRING, "x")},
        {"odd_tensors": array(OWN + "odd_tensors", STRING, [string("token_embd.weight")])},
        {
            "odd_keys": array(OWN + "odd_keys", STRING, [string(ARCH)]),
        },
        {"odd_keys": array(OWN + "odd_keys", U64, [1])},
    ],
    ids=lambda keys: str(next(iter(keys.values())))[-40:],
)
def test_stores_that_were_changed(
    keys: dict[str, bytes], tiny_split: TinySplit, tmp_path: Path
) -> None:
    """A store may claim what it likes of its source: a merge gives a GGUF file or an error."""
    files = tiny_split("llama-tied")
    changed = {OWN + name: record for name, record in keys.items()}
    vocab = rebuilt(files.vocab, tmp_path / "m.vocab.gguf", **changed)
    with pytest.raises(BadFileError):
        merge_model(files.core, vocab, tmp_path / "merged.gguf")
    assert everything_in(tmp_path) == ["m.vocab.gguf"]


@pytest.mark.fuzz
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_flipped_bits_of_a_source(
    data: st.DataObject, tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped-source.gguf"
    damaged = bytearray(odd(tiny("llama-tied"), **ODD["everything"][0]))
    end = GGUFHeader(tiny("llama-tied")).data_offset
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, 8 * end - 1), label="bit")
        damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        found = read_source(path)
    except VocabTailorError:
        return
    for k in found.header.keys.values():
        k.decode()
    # what is left of it may stand in files of ours
    records = [k.record for k in found.header.keys.values()]
    path.write_bytes(pad(header(records)))
    assert list(GGUFHeader(path).keys) == list(found.header.keys)


def test_inspect_shows_odd_models(
    tiny: TinyModel, tiny_split: TinySplit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(odd(tiny("llama-tied"), tail=b"x" * 100))
    assert main(["inspect", str(path)]) == 0
    assert "odd, but llama.cpp may load it: 100 bytes after the last tensor" in (
        capsys.readouterr().out
    )
    path.write_bytes(tiny_split("llama-tied").vocab.read_bytes() + b"x")
    assert main(["inspect", str(path)]) == 1
    assert "1 bytes after the last tensor" in capsys.readouterr().err


# the first bytes of files that are given by mistake, and what they are
MISTAKEN: dict[bytes, str] = {
    b"<!DOCTYPE html><html>Entry not found</html>": "an HTML page",
    b"\xef\xbb\xbf\n <HTML lang=en>": "an HTML page",
    b"<?xml version='1.0'?><Error/>": "an XML document",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n": "a Git LFS pointer",
    struct.pack("<Q", 12) + b'{"a": "bcd"}' + bytes(20): "a safetensors file",
    b"PK\3\4" + bytes(30): "a ZIP archive, perhaps a PyTorch checkpoint",
    b"\x80\2\x8a\nl\xfc": "a Python pickle, perhaps a PyTorch checkpoint",
    b"\x1f\x8b\x08" + bytes(30): "a gzip archive",
    b"\x28\xb5\x2f\xfd" + bytes(30): "a Zstandard archive",
    b"\xfd7zXZ\0" + bytes(30): "an xz archive",
    b"BZh91AY": "a bzip2 archive",
    b"m.gguf".ljust(257, b"\0") + b"ustar\x0000": "a tar archive",
    b"tjgg" + bytes(30): "a GGML file from before GGUF",
    b"\x7fELF" + bytes(30): "a program",
    b"\xff\xfeG\0": "a text in UTF-16",
    bytes(4096): "zeros, perhaps a download that was not finished",
    b"Entry not found": 'a text that begins with "Entry not found"',
    b"\x01\x02\x03\x04\x05": "a file that begins with the bytes 01 02 03 04",
    b'{"error": "Invalid"}\n': 'a text that begins with "{"error": "Invalid"}"',
}


@pytest.mark.parametrize("content", MISTAKEN, ids=lambda b: MISTAKEN[b][:40])
def test_files_that_are_no_gguf(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    for read in (GGUFHeader, split_model):
        with pytest.raises(BadFileError) as e:
            read(path)
        assert str(e.value).startswith(f"{path}: magic: not a GGUF file, but {MISTAKEN[content]}")
    path.write_bytes(b"")
    with pytest.raises(BadFileError, match="0 bytes"):
        GGUFHeader(path)
    with pytest.raises(BadFileError, match="a folder, not a regular file"):
        GGUFHeader(tmp_path)
