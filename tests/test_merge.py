from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TinyModel, TinySplit
from gguf.constants import GGMLQuantizationType
from ggufbytes import STRING, U32, array, key, rebuilt

from vocabtailor_gguf.errors import BadFileError, MismatchError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.split.merge import merge_model
from vocabtailor_gguf.split.split import SplitFiles, split_model


def _own(name: str, kind: int, value: int | str) -> dict[str, bytes]:
    name = f"vocabtailor.{name}"
    return {name: key(name, kind, value)}


MISMATCHED: dict[str, Callable[[TinySplit], tuple[Path, Path]]] = {
    "swapped": lambda s: (s("llama").vocab, s("llama").core),
    "the core twice": lambda s: (s("llama").core, s("llama").core),
    "the store twice": lambda s: (s("llama").vocab, s("llama").vocab),
    "another architecture": lambda s: (s("llama").core, s("qwen2").vocab),
    "another width": lambda s: (s("llama").core, s("llama", n_embd=128).vocab),
    "another vocabulary": lambda s: (s("llama").core, s("llama", n_vocab=520).vocab),
    "other weights": lambda s: (s("llama").core, s("llama", seed=1).vocab),
    "tied and untied": lambda s: (s("llama").core, s("llama-tied").vocab),
}


@pytest.mark.parametrize("name", MISMATCHED)
def test_files_that_do_not_belong_together(
    name: str, tiny_split: TinySplit, tmp_path: Path
) -> None:
    core, vocab = MISMATCHED[name](tiny_split)
    with pytest.raises(MismatchError) as e:
        merge_model(core, vocab, tmp_path / "merged.gguf")
    assert str(core) in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_unsplit_models(tiny: TinyModel, tiny_split: TinySplit, tmp_path: Path) -> None:
    files = tiny_split("llama")
    for core, vocab in ((tiny("llama"), files.vocab), (files.core, tiny("llama"))):
        with pytest.raises(MismatchError, match=r"llama\.gguf: "):
            merge_model(core, vocab, tmp_path / "merged.gguf")
    assert list(tmp_path.iterdir()) == []


def test_store_that_was_requantised_otherwise(tiny: TinyModel, tmp_path: Path) -> None:
    one = split_model(tiny("llama"), tmp_path / "one", "Q5_0")
    other = split_model(tiny("llama"), tmp_path / "other", "Q4_0")
    with pytest.raises(MismatchError, match=r"vocabtailor\.pair_id"):
        merge_model(one.core, other.vocab, tmp_path / "merged.gguf")
    assert not (tmp_path / "merged.gguf").exists()


@pytest.mark.parametrize(
    "keys",
    [
        _own("pair_id", STRING, "f" * 32),
        _own("source.sha256", STRING, "f" * 64),
        _own("n_vocab", U32, 518),
        _own("n_embd", U32, 63),
        _own("tied", STRING, "no"),
        _own("stub_rows", U32, 31),
        {"llama.vocab_size": key("llama.vocab_size", U32, 20_000_000)},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_core_that_was_changed(
    keys: dict[str, bytes], tiny_split: TinySplit, tmp_path: Path
) -> None:
    files = tiny_split("llama")
    core = rebuilt(files.core, tmp_path / "m.core.gguf", **keys)
    with pytest.raises((MismatchError, BadFileError), match=r"m\.core\.gguf"):
        merge_model(core, files.vocab, tmp_path / "merged.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["m.core.gguf"]


_ORDER = "vocabtailor.source.key_order"
_TENSORS = "vocabtailor.source.tensor_order"


@pytest.mark.parametrize(
    ("drop", "keys"),
    [
        ((_ORDER,), {}),
        ((_TENSORS,), {}),
        ((), {_ORDER: key(_ORDER, STRING, "x")}),
        ((), {_ORDER: array(_ORDER, STRING, ["no.such.key"])}),
        ((), {_ORDER: array(_ORDER, STRING, ["general.architecture"] * 2)}),
        ((), {_TENSORS: array(_TENSORS, U32, [1])}),
        ((), {_TENSORS: array(_TENSORS, STRING, ["no.such.tensor"])}),
        ((), {_TENSORS: array(_TENSORS, STRING, ["blk.0.attn_q.weight"])}),
        ((), {_TENSORS: array(_TENSORS, STRING, ["token_embd.weight"] * 2)}),
    ],
)
def test_store_that_was_changed(
    drop: tuple[str, ...], keys: dict[str, bytes], tiny_split: TinySplit, tmp_path: Path
) -> None:
    files = tiny_split("llama")
    vocab = rebuilt(files.vocab, tmp_path / "m.vocab.gguf", drop=drop, **keys)
    with pytest.raises(BadFileError, match=r"m\.vocab\.gguf"):
        merge_model(files.core, vocab, tmp_path / "merged.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["m.vocab.gguf"]


def test_alignments_that_differ(tiny_split: TinySplit, tmp_path: Path) -> None:
    files = tiny_split("llama")
    keys = {"general.alignment": key("general.alignment", U32, 16)}
    vocab = rebuilt(files.vocab, tmp_path / "m.vocab.gguf", **keys)
    with pytest.raises(MismatchError, match="alignment 32 and 16"):
        merge_model(files.core, vocab, tmp_path / "merged.gguf")


def test_data_that_was_changed_is_not_called_identical(
    tiny_split: TinySplit, tmp_path: Path
) -> None:
    core, vocab = (Path(shutil.copy(p, tmp_path)) for p in _pair(tiny_split("llama")))
    table = GGUFHeader(vocab).tensors["output.weight"]
    with open(vocab, "r+b") as f:
        f.seek(table.offset + 7)
        f.write(b"\x55")
    assert not merge_model(core, vocab, tmp_path / "merged.gguf").identical


def _pair(files: SplitFiles) -> tuple[Path, Path]:
    return files.core, files.vocab


def test_sibling_is_found(tiny: TinyModel, tmp_path: Path) -> None:
    files = split_model(tiny("qwen2"), tmp_path)
    assert merge_model(files.core, None, tmp_path / "merged.gguf").identical
    with pytest.raises(BadFileError, match=r"expected NAME\.core\.gguf"):
        merge_model(files.core.rename(tmp_path / "other.gguf"), None, tmp_path / "m.gguf")
    with pytest.raises(BadFileError, match=r"none\.vocab\.gguf: cannot be opened"):
        merge_model(
            (tmp_path / "other.gguf").rename(tmp_path / "none.core.gguf"), None, tmp_path / "m.gguf"
        )


# ---- requantised tables ----

# types that ggml quantises to without an importance matrix
TYPES_OF_32 = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4"]
TYPES_OF_256 = [
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_XS", "IQ3_XXS", "IQ3_S", "IQ2_S"),
    *("TQ1_0", "TQ2_0"),
]
TYPES = [*((t, 64) for t in TYPES_OF_32), *((t, 256) for t in TYPES_OF_256)]


def _types(path: Path) -> dict[str, str]:
    found = GGUFHeader(path).tensors
    return {n: GGMLQuantizationType(found[n].type).name for n in found if not n.startswith("blk")}


@pytest.mark.parametrize(("kind", "n_embd"), TYPES)
@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_requantised_tables(
    name: str, kind: str, n_embd: int, tiny: TinyModel, tmp_path: Path
) -> None:
    source = tiny(name, n_embd=n_embd, embd_type="F16", output_type="F16")
    embedding = kind if kind != "F16" else None
    files = split_model(source, tmp_path, embedding, kind.lower())
    tied = name == "llama-tied"
    same = embedding is None or tied  # one table where both would have the same bytes
    if tied:
        assert _types(files.vocab) == {"token_embd.weight": kind}
    else:
        assert _types(files.vocab) == {"token_embd.weight": kind, "output.weight": kind}
    assert same or files.proof.reference == "merged"
    merged = merge_model(files.core, files.vocab, tmp_path / "merged.gguf")
    assert merged.identical == (kind == "F16")
    for table, found in _types(files.vocab).items():
        assert _types(merged.path)[table] == found
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["merged.gguf", files.core.name, files.vocab.name]
    )


@pytest.mark.parametrize(("kind", "n_embd"), [("Q4_0", 64), ("Q5_0", 64), ("Q4_K", 256)])
@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "gpt2", "granite"])
def test_tied_model_gets_a_head_of_its_own(
    name: str, kind: str, n_embd: int, tiny: TinyModel, tmp_path: Path
) -> None:
    files = split_model(tiny(name, n_embd=n_embd), tmp_path, None, kind)
    assert _types(files.vocab) == {"token_embd.weight": "Q8_0", "output.weight": kind}
    for path in (files.core, files.vocab):
        assert GGUFHeader(path).get("vocabtailor.tied") is False
    assert files.proof.reference == "merged"
    assert _types(merge_model(files.core, None, tmp_path / "m.gguf").path)["output.weight"] == kind


@pytest.mark.parametrize("name", ["gemma", "gemma2", "command-r", "cohere2"])
def test_architectures_without_a_head_of_their_own(
    name: str, tiny: TinyModel, tmp_path: Path
) -> None:
    with pytest.raises(VocabTailorError, match="no separate LM head"):
        split_model(tiny(name), tmp_path, None, "Q4_0")
    assert list(tmp_path.iterdir()) == []
    split_model(tiny(name), tmp_path, "Q4_0")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("Q9_9", "unknown tensor type 'Q9_9', expected one of F32, "),
        ("", "unknown tensor type ''"),
        *((t, "rows of 64 values do not fit type") for t in TYPES_OF_256 if t != "Q8_0"),
        *((t, f"type {t.lower()} cannot be decoded") for t in ("I8", "I32", "F64", "Q8_1")),
        ("Q8_K", "type q8_K cannot be decoded"),
    ],
)
def test_types_that_do_not_fit(kind: str, text: str, tiny: TinyModel, tmp_path: Path) -> None:
    for types in ((kind, None), (None, kind)):
        for name in ("llama", "llama-tied"):
            with pytest.raises(VocabTailorError) as e:
                split_model(tiny(name), tmp_path, *types)
            assert text in str(e.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["IQ2_XXS", "IQ2_XS", "IQ1_S"])
def test_types_that_need_an_importance_matrix(kind: str, tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(VocabTailorError, match=f"type {kind.lower()} needs an importance matrix"):
        split_model(tiny("llama", n_embd=256), tmp_path, kind)
    assert list(tmp_path.iterdir()) == []
