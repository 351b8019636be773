from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from ggufbytes import (
    BOOL,
    F32,
    I32,
    STRING,
    U16,
    U32,
    U64,
    TensorInfo,
    array,
    key,
    write_file,
)

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import BadFileError, MismatchError

N_VOCAB, N_EMBD = 40, 32

Keys = dict[str, bytes | None]
Tensors = dict[str, tuple[tuple[int, ...], int] | None]


def _strings(n: int) -> list[str]:
    return [f"t{i}" for i in range(n)]


def good_keys() -> Keys:
    values: dict[str, tuple[int, Any]] = {
        "general.architecture": (STRING, "llama"),
        "vocabtailor.kind": (STRING, "vocab"),
        "vocabtailor.format_version": (U32, 1),
        "vocabtailor.pair_id": (STRING, "0123456789abcdef" * 2),
        "vocabtailor.source.sha256": (STRING, "0" * 64),
        "vocabtailor.tokenizer.sha256": (STRING, "f" * 64),
        "vocabtailor.n_vocab": (U32, N_VOCAB),
        "vocabtailor.n_embd": (U32, N_EMBD),
        "vocabtailor.tied": (BOOL, True),
        "vocabtailor.stub_rows": (U32, 32),
        "vocabtailor.logit_scale": (F32, 1.0),
        "vocabtailor.logit_softcap": (F32, 0.0),
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.bos_token_id": (U32, 1),
        "tokenizer.ggml.eos_token_id": (U32, N_VOCAB - 1),
    }
    keys: Keys = {name: key(name, *v) for name, v in values.items()}
    keys["tokenizer.ggml.tokens"] = array("tokenizer.ggml.tokens", STRING, _strings(N_VOCAB))
    keys["tokenizer.ggml.scores"] = array("tokenizer.ggml.scores", F32, [0.0] * N_VOCAB)
    keys["tokenizer.ggml.token_type"] = array("tokenizer.ggml.token_type", I32, [1] * N_VOCAB)
    return keys


REQUIRED = [n for n in good_keys() if not n.endswith(("_token_id", ".scores", ".token_type"))]


def write_store(path: Path, keys: Keys | None = None, tensors: Tensors | None = None) -> Path:
    """Writes a store of random rows; None leaves out what would be there."""
    records = {**good_keys(), **(keys or {})}
    shapes = {"token_embd.weight": ((N_EMBD, N_VOCAB), 0), **(tensors or {})}
    rng = np.random.default_rng(0)
    data = {}
    for name, shape in shapes.items():
        if shape is not None:
            info = TensorInfo(name, *shape)
            floats = rng.normal(size=info.n_bytes // 4 + 1).astype(np.float32)
            data[info] = floats.tobytes()[: info.n_bytes]
    return write_file(path, (r for r in records.values() if r is not None), data)


def changed(name: str, kind: int, value: Any) -> Keys:
    return {name: key(name, kind, value)}


def listed(name: str, kind: int, items: Iterable[Any]) -> Keys:
    return {name: array(name, kind, items)}


def own(name: str, kind: int, value: Any) -> Keys:
    return changed(f"vocabtailor.{name}", kind, value)


def tok(name: str, kind: int, value: Any) -> Keys:
    return changed(f"tokenizer.ggml.{name}", kind, value)


EMBEDDING, HEAD, BIAS = "token_embd.weight", "output.weight", "output.bias"
PER_LAYER = "per_layer_token_embd.weight"
FULL = ((N_EMBD, N_VOCAB), 0)
UNTIED = own("tied", BOOL, False)

# keys that differ, tensors that differ, what the error has to name
BAD_KEYS: dict[str, tuple[Keys, str]] = {
    **{f"no {n}": ({n: None}, f"key {n}: missing") for n in REQUIRED},
    **{f"{n} as u64": (changed(n, U64, 1), f"key {n}: type 10") for n in REQUIRED},
    **{f"{n} as a list": (listed(n, U64, [1] * N_VOCAB), f"key {n}: ") for n in REQUIRED},
    "format version 0": (own("format_version", U32, 0), "found 0, expected 1"),
    "format version 2": (own("format_version", U32, 2), "found 2, expected 1"),
    "format version 2^32 - 1": (own("format_version", U32, 2**32 - 1), "expected 1"),
    "architecture of 0 bytes": (changed("general.architecture", STRING, ""), "architecture: 0"),
    "architecture of 64 bytes": (
        changed("general.architecture", STRING, "a" * 64),
        "architecture: 64 bytes",
    ),
    "NUL in the architecture": (changed("general.architecture", STRING, "a\0b"), "byte 0x00"),
    "architecture not in UTF-8": (changed("general.architecture", STRING, b"a\xff"), "byte 0xff"),
    "pair id of 65 bytes": (own("pair_id", STRING, "a" * 65), "vocabtailor.pair_id: 65 bytes"),
    "pair id not in UTF-8": (own("pair_id", STRING, b"\xc3"), "vocabtailor.pair_id: byte 0xc3"),
    "sha256 of 65 bytes": (own("source.sha256", STRING, "a" * 65), "source.sha256: 65 bytes"),
    "shards": (changed("split.count", U16, 2), "split.count"),
    "n_vocab 0": (own("n_vocab", U32, 0), "vocabtailor.n_vocab"),
    "n_vocab 2^31": (own("n_vocab", U32, 2**31), "vocabtailor.n_vocab"),
    "n_vocab 2^32 - 1": (own("n_vocab", U32, 2**32 - 1), "vocabtailor.n_vocab"),
    "n_vocab too small": (own("n_vocab", U32, N_VOCAB - 1), "tokens: 40 elements"),
    "n_vocab too large": (own("n_vocab", U32, N_VOCAB + 1), "tokens: 40 elements"),
    "n_embd 0": (own("n_embd", U32, 0), "table of 40 x 0"),
    "n_embd too small": (own("n_embd", U32, 31), "token_embd.weight: shape (32, 40)"),
    "n_embd 2^32 - 1": (own("n_embd", U32, 2**32 - 1), "token_embd.weight: shape (32, 40)"),
    "stub rows 0": (own("stub_rows", U32, 0), "stub_rows: found 0"),
    "stub rows 4097": (own("stub_rows", U32, 4097), "stub_rows: found 4097"),
    **{
        f"{name} {x}": (own(name, F32, x), f"{name}: not a finite number")
        for name in ("logit_scale", "logit_softcap")
        for x in (math.nan, math.inf, -math.inf)
    },
    "negative soft cap": (own("logit_softcap", F32, -1.0), "logit_softcap: negative"),
    "untied without a head": (UNTIED, "tensor output.weight: missing"),
    **{
        f"{n} {name}": (listed(f"tokenizer.ggml.{name}", kind, [x] * n), f"{name}: {n} elements")
        for name, kind, x in (("tokens", STRING, "t"), ("scores", F32, 0.0), ("token_type", I32, 1))
        for n in (0, N_VOCAB - 1, N_VOCAB + 1)
    },
    **{
        f"tokens {texts}": (
            listed("tokenizer.ggml.tokens", STRING, [*_strings(N_VOCAB)[: -len(texts)], *texts]),
            f'key tokenizer.ggml.tokens: tokens {found}"',
        )
        for texts, found in (
            (("t0",), '0 and 39 have one text, "t0'),
            (("x" * 40, "y", "x" * 40), f'37 and 39 have one text, "{"x" * 32}...'),
            (("é", "é"), r'38 and 39 have one text, "\xc3\xa9'),
            (("u\0v", "u\0w"), '38 and 39 have one text, "u'),  # llama.cpp reads C strings
            (("", "[EMPTY_38]"), '38 and 39 have one text, "[EMPTY_38]'),
            (("\0v", "", "[EMPTY_37]"), '37 and 39 have one text, "[EMPTY_37]'),
        )
    },
    "tokens as numbers": (listed("tokenizer.ggml.tokens", U32, range(N_VOCAB)), "tokens: elements"),
    "scores as i32": (listed("tokenizer.ggml.scores", I32, range(N_VOCAB)), "scores: elements"),
    "types as u32": (listed("tokenizer.ggml.token_type", U32, range(N_VOCAB)), "type: elements"),
    "scores as text": (tok("scores", STRING, "x"), "scores: type 8"),
    **{
        f"{name} id {x}": (tok(f"{name}_token_id", U32, x), f"{name}_token_id: {x}, expected less")
        for name in ("bos", "eos", "eot", "unknown", "padding", "fim_pre")
        for x in (N_VOCAB, 2**31, 2**32 - 1)
    },
    "special id as i32": (tok("eos_token_id", I32, 1), "eos_token_id: type 5"),
    "special id as text": (tok("eot_token_id", STRING, "1"), "eot_token_id: type 8"),
}

BAD_TENSORS: dict[str, tuple[Keys, Tensors, str]] = {
    "no embedding": ({}, {EMBEDDING: None}, "tensor token_embd.weight: missing"),
    "only a head": (UNTIED, {EMBEDDING: None, HEAD: FULL}, "tensor token_embd.weight: missing"),
    "tied with a head": ({}, {HEAD: FULL}, "tensor output.weight: present"),
    "a tensor of the core": ({}, {"output_norm.weight": ((N_EMBD,), 0)}, "output_norm.weight"),
    "a tensor with another name": ({}, {"x": FULL}, "tensor x: unexpected"),
    "transposed": ({}, {EMBEDDING: ((N_VOCAB, N_EMBD), 0)}, "shape (40, 32), expected (32, 40)"),
    "a row too few": ({}, {EMBEDDING: ((N_EMBD, N_VOCAB - 1), 0)}, "shape (32, 39)"),
    "a row too many": ({}, {EMBEDDING: ((N_EMBD, N_VOCAB + 1), 0)}, "shape (32, 41)"),
    "1-d": ({}, {EMBEDDING: ((N_EMBD * N_VOCAB,), 0)}, "token_embd.weight: shape"),
    "3-d": ({}, {EMBEDDING: ((N_EMBD, N_VOCAB, 1), 0)}, "token_embd.weight: shape"),
    "head of other rows": (UNTIED, {HEAD: ((N_EMBD, N_VOCAB - 1), 0)}, "output.weight: shape"),
    "head of other width": (UNTIED, {HEAD: ((64, N_VOCAB), 0)}, "output.weight: shape"),
    **{
        f"{kind.name} rows": ({}, {EMBEDDING: ((N_EMBD, N_VOCAB), kind)}, f"type {name} cannot be")
        for kind, name in (
            (GGMLQuantizationType.I8, "i8"),
            (GGMLQuantizationType.I32, "i32"),
            (GGMLQuantizationType.F64, "f64"),
            (GGMLQuantizationType.Q8_1, "q8_1"),
        )
    },
    "rows for each layer, too few": ({}, {PER_LAYER: ((96, N_VOCAB - 1), 0)}, "shape (96, 39)"),
    "rows for each layer, 1-d": ({}, {PER_LAYER: ((N_VOCAB,), 0)}, f"{PER_LAYER}: shape"),
    "rows for each layer of i8": (
        {},
        {PER_LAYER: ((96, N_VOCAB), GGMLQuantizationType.I8)},
        "type i8 cannot be",
    ),
    "rows of 2^20 + 32 values": (
        own("n_embd", U32, 2**20 + 32),
        {EMBEDDING: ((2**20 + 32, N_VOCAB), 0)},
        "token_embd.weight: rows of 1048608 values, expected at most 1048576",
    ),
    "2-d bias": ({}, {BIAS: ((N_VOCAB, 1), 0)}, "tensor output.bias: expected (n_vocab,)"),
    "bias of other length": ({}, {BIAS: ((N_EMBD,), 0)}, "tensor output.bias"),
    "bias of f16": ({}, {BIAS: ((N_VOCAB,), GGMLQuantizationType.F16)}, "tensor output.bias"),
}


@pytest.mark.fuzz
@pytest.mark.parametrize("name", BAD_KEYS)
def test_bad_keys(name: str, tmp_path: Path) -> None:
    keys, text = BAD_KEYS[name]
    path = write_store(tmp_path / "bad.gguf", keys)
    with pytest.raises(BadFileError) as e:
        VocabStore(path)
    assert str(e.value).startswith(f"{path}: ")
    assert text in str(e.value)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensors(name: str, tmp_path: Path) -> None:
    keys, tensors, text = BAD_TENSORS[name]
    path = write_store(tmp_path / "bad.gguf", keys, tensors)
    with pytest.raises(BadFileError) as e:
        VocabStore(path)
    assert str(e.value).startswith(f"{path}: tensor ")
    assert text in str(e.value)


@pytest.mark.parametrize("kind", ["core", "other", ""])
def test_kind(kind: str, tmp_path: Path) -> None:
    path = write_store(tmp_path / "bad.gguf", own("kind", STRING, kind))
    with pytest.raises(MismatchError, match=rf'key vocabtailor\.kind: found "{kind}"'):
        VocabStore(path)


@pytest.mark.parametrize(
    ("model", "n_vocab", "n_needed"),
    [("llama", 2, 3), ("gpt2", 11, 12), ("bert", 103, 104)],
)
def test_default_special_ids(model: str, n_vocab: int, n_needed: int, tmp_path: Path) -> None:
    def write(n: int, *special: str) -> Path:
        keys: Keys = {
            **listed("tokenizer.ggml.tokens", STRING, _strings(n)),
            **own("n_vocab", U32, n),
            **tok("model", STRING, model),
            **{f"tokenizer.ggml.{k}": None for k in ("scores", "token_type")},
            **{f"tokenizer.ggml.{k}_token_id": None for k in ("bos", "eos")},
        }
        for name in special:
            keys |= tok(f"{name}_token_id", U32, 0)
        return write_store(tmp_path / "small.gguf", keys, {EMBEDDING: ((N_EMBD, n), 0)})

    for special in ([], ["bos"], ["eos"]):
        with pytest.raises(BadFileError, match=rf"default of a {model} tokenizer is outside"):
            VocabStore(write(n_vocab, *special))
    VocabStore(write(n_needed)).close()


@pytest.mark.parametrize(
    ("keys", "tensors"),
    [
        ({}, {}),
        ({f"tokenizer.ggml.{n}": None for n in ("scores", "token_type")}, {}),
        (changed("general.name", STRING, "x") | tok("pre", STRING, "default"), {}),
        ({}, {BIAS: ((N_VOCAB,), 0)}),
        (UNTIED, {HEAD: FULL, BIAS: ((N_VOCAB,), 0)}),
        ({}, {PER_LAYER: ((96, N_VOCAB), 0)}),
        (own("embedding_scale", F32, 25.3), {}),  # of earlier files, no longer needed
        (
            listed(
                "tokenizer.ggml.tokens", STRING, [*_strings(N_VOCAB - 3), "", "\0x", "[EMPTY_1]"]
            ),
            {},
        ),
    ],
)
def test_good_stores(keys: Keys, tensors: Tensors, tmp_path: Path) -> None:
    with VocabStore(write_store(tmp_path / "good.gguf", keys, tensors)) as store:
        assert (store.n_vocab, store.n_embd, store.architecture) == (N_VOCAB, N_EMBD, "llama")
        assert store.tied == (HEAD not in tensors)
        assert store.has_bias == (BIAS in tensors)
        assert store.n_per_layer == (96 if PER_LAYER in tensors else 0)
        assert store.rows(range(N_VOCAB)).shape == (N_VOCAB, N_EMBD)


def test_head_of_any_type_that_has_rows(tmp_path: Path) -> None:
    n_embd = 256
    for kind in GGMLQuantizationType:
        keys = own("n_embd", U32, n_embd)
        shape = {EMBEDDING: ((n_embd, N_VOCAB), int(kind))}
        path = write_store(tmp_path / f"{kind.name}.gguf", keys, shape)
        try:
            store = VocabStore(path)
        except BadFileError as e:
            assert "cannot be decoded by row" in str(e)
            continue
        head = ActiveHead(store)
        head.set_static(np.arange(N_VOCAB, dtype=np.int32))
        logits = head.compute(np.ones((2, n_embd), dtype=np.float32), n_threads=1)
        assert logits.shape == (2, N_VOCAB)
        head.close()
        store.close()
