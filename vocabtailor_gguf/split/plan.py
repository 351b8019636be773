"""What goes where when a model is split: keys, tensors, sizes. No data is touched here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocabtailor_gguf.binding.types import type_geometry, type_name
from vocabtailor_gguf.errors import BadFileError, UnsupportedError
from vocabtailor_gguf.gguf.header import GGUFHeader, Key, Tensor
from vocabtailor_gguf.gguf.keys import (
    BIAS,
    EMBEDDING,
    FORMAT_VERSION,
    HEAD,
    KEY_ORDER,
    PAIR_ID,
    PER_LAYER,
    SOURCE_SHA,
    STUB_ROWS,
    TENSOR_ORDER,
    TENSOR_SHA,
)
from vocabtailor_gguf.gguf.source import read_source
from vocabtailor_gguf.gguf.write import TensorSpec, encode_key
from vocabtailor_gguf.split.architectures import (
    ALWAYS_TIED,
    VocabularyMath,
    check_supported,
    vocabulary_math,
)

_UNKNOWN_SHA = "0" * 64
_UNKNOWN_PAIR = "0" * 32
_SMALL = 4096  # bytes of a key record

# llama.cpp shows its first 37 characters while it loads a core, and aborts later, at the first text
_DESCRIPTION = (
    "No tokenizer: use vocabtailor_gguf. This is the core of a split model, and llama.cpp aborts "
    "where it is given text: open it with vocabtailor_gguf.TailoredLlama, or merge it with its "
    "vocabulary store."
)


@dataclass(frozen=True)
class Table:
    """A vocabulary tensor of the store: where it comes from and the type it gets."""

    name: str
    source: Tensor
    type: int
    n_bytes: int

    @property
    def requantized(self) -> bool:
        """Whether the type differs from the source's."""
        return self.type != self.source.type


@dataclass(frozen=True)
class SplitPlan:
    """Everything that is known about a split before a byte of data is read."""

    source: GGUFHeader
    architecture: str
    n_vocab: int
    n_embd: int
    tied: bool
    math: VocabularyMath
    tables: tuple[Table, ...]  # of the store, in file order
    core_records: tuple[bytes, ...]
    vocab_records: tuple[bytes, ...]
    core_tensors: tuple[TensorSpec, ...]

    @property
    def requantized(self) -> bool:
        """Whether any table changes, so that a merge gives another model than the source."""
        return any(t.requantized for t in self.tables)

    @property
    def vocab_tensors(self) -> tuple[TensorSpec, ...]:
        """Tensors of the store."""
        return tuple(TensorSpec(t.name, t.type, t.source.ne, t.n_bytes) for t in self.tables)


def tokenizer_fingerprint(header: GGUFHeader) -> str:
    """Return the sha256 of the keys that say which text a token id stands for."""
    digest = hashlib.sha256()
    for name in ("model", "pre", "tokens", "token_type", "merges"):
        key = header.keys.get(f"tokenizer.ggml.{name}")
        if key is not None:
            digest.update(key.record)
    return digest.hexdigest()


def plan_split(
    path: Path, *, embedding_type: int | None = None, output_type: int | None = None
) -> SplitPlan:
    """Check a model and decide what goes where.

    Raises:
        BadFileError: The file is malformed.
        UnsupportedError: The model, or a type for one of its tables, is not supported.
    """
    found = read_source(path)
    source = found.header
    arch = check_supported(source)
    n_vocab, n_embd = _vocabulary_shape(source)
    tables = _tables(source, n_vocab, n_embd, embedding_type, output_type)
    tied = all(t.name != HEAD for t in tables)
    math = vocabulary_math(source, arch, n_embd)
    own: dict[str, bool | int | float | str | list[str]] = {
        "vocabtailor.format_version": FORMAT_VERSION,
        PAIR_ID: _UNKNOWN_PAIR,
        "vocabtailor.n_vocab": n_vocab,
        "vocabtailor.n_embd": n_embd,
        "vocabtailor.tied": tied,
        "vocabtailor.stub_rows": STUB_ROWS,
        "vocabtailor.logit_scale": math.logit_scale,
        "vocabtailor.logit_softcap": math.logit_softcap,
        SOURCE_SHA: _UNKNOWN_SHA,
    }
    ours = [encode_key(k, v) for k, v in own.items()]
    hashes = {TENSOR_SHA[t.name]: _UNKNOWN_SHA for t in tables}
    store_only: dict[str, bool | int | str | Sequence[str | bytes]] = {
        "vocabtailor.tokenizer.sha256": tokenizer_fingerprint(source),
        "vocabtailor.source.tied": HEAD not in source.tensors,
        KEY_ORDER: found.key_order,
        TENSOR_ORDER: list(source.tensors),
        **found.own,
        **hashes,
    }
    return SplitPlan(
        source=source,
        architecture=arch,
        n_vocab=n_vocab,
        n_embd=n_embd,
        tied=tied,
        math=math,
        tables=tables,
        core_records=(
            *_core_records(source, arch),
            encode_key("vocabtailor.kind", "core"),
            *ours,
        ),
        vocab_records=(
            *(k.record for k in source.keys.values() if _belongs_to_store(k)),
            encode_key("vocabtailor.kind", "vocab"),
            *ours,
            *(encode_key(k, v) for k, v in store_only.items()),
        ),
        core_tensors=_core_tensors(source, tables),
    )


def with_known(records: tuple[bytes, ...], known: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return a plan's records with values that are known only after the data has been read.

    A record is told by all its bytes, so no text of the source is taken for one of ours.
    """
    unknown = {k: _UNKNOWN_PAIR if k == PAIR_ID else _UNKNOWN_SHA for k in known}
    new = {encode_key(k, unknown[k]): encode_key(k, v) for k, v in known.items()}
    return tuple(new.get(r, r) for r in records)


def _vocabulary_shape(source: GGUFHeader) -> tuple[int, int]:
    where = source.path
    model = source.require("tokenizer.ggml.model", str)
    tokens = source.keys.get("tokenizer.ggml.tokens")
    if model == "no_vocab" or tokens is None or tokens.element_type != 8:
        raise UnsupportedError(f"{where}: has no tokenizer, so there is no vocabulary to split off")
    table = source.tensors.get(EMBEDDING)
    if table is None:
        raise BadFileError(f"{where}: tensor {EMBEDDING}: missing")
    if len(table.ne) != 2 or table.ne[1] != tokens.n:
        raise BadFileError(
            f"{where}: tensor {EMBEDDING}: shape {table.ne}, expected (n_embd, {tokens.n})"
        )
    if tokens.n <= STUB_ROWS:
        raise UnsupportedError(f"{where}: {tokens.n} tokens, expected more than {STUB_ROWS}")
    return tokens.n, table.ne[0]


def _tables(
    source: GGUFHeader, n_vocab: int, n_embd: int, embedding_type: int | None, head_type: int | None
) -> tuple[Table, ...]:
    tables = []
    for tensor in source.tensors.values():
        if tensor.name == EMBEDDING:
            tables.append(_table(source, EMBEDDING, tensor, embedding_type, n_embd))
            if HEAD not in source.tensors and head_type is not None:
                head = _table(source, HEAD, tensor, head_type, n_embd)
                if head.type != tables[-1].type:  # the same bytes twice would gain nothing
                    _check_can_be_untied(source)
                    tables.append(head)
        elif tensor.name == HEAD:
            if tensor.ne != (n_embd, n_vocab):
                raise BadFileError(
                    f"{source.path}: tensor {HEAD}: shape {tensor.ne}, "
                    f"expected ({n_embd}, {n_vocab})"
                )
            tables.append(_table(source, HEAD, tensor, head_type, n_embd))
        elif tensor.name == PER_LAYER:
            if len(tensor.ne) != 2 or tensor.ne[1] != n_vocab:
                raise BadFileError(
                    f"{source.path}: tensor {PER_LAYER}: shape {tensor.ne}, "
                    f"expected a row for each of {n_vocab} tokens"
                )
            tables.append(Table(PER_LAYER, tensor, tensor.type, tensor.n_bytes))
        elif tensor.name == BIAS:
            if tensor.ne != (n_vocab,) or type_name(tensor.type) != "F32":
                raise BadFileError(f"{source.path}: tensor {BIAS}: expected ({n_vocab},) of F32")
            tables.append(Table(BIAS, tensor, tensor.type, tensor.n_bytes))
        elif n_vocab in tensor.ne[1:]:
            raise UnsupportedError(
                f"{source.path}: tensor {tensor.name} has a row for each token, which is supported "
                f"for {EMBEDDING}, {PER_LAYER} and {HEAD} only"
            )
    return tuple(tables)


def _check_can_be_untied(source: GGUFHeader) -> None:
    arch = source.get("general.architecture")
    if arch in ALWAYS_TIED:
        raise UnsupportedError(
            f"{source.path}: llama.cpp has no separate LM head for {arch}, so its type is that of "
            "the token embedding"
        )


def _table(source: GGUFHeader, name: str, tensor: Tensor, wanted: int | None, n_embd: int) -> Table:
    if wanted is None or wanted == tensor.type:
        return Table(name, tensor, tensor.type, tensor.n_bytes)
    block, size = type_geometry(wanted)
    if n_embd % block:
        raise UnsupportedError(
            f"{source.path}: tensor {name}: rows of {n_embd} values do not fit type "
            f"{type_name(wanted)}, whose blocks have {block}; a type with blocks of 32, such as "
            "Q8_0, Q5_0 or Q4_0, does"
        )
    return Table(name, tensor, wanted, tensor.ne[1] * (n_embd // block) * size)


def _belongs_to_store(key: Key) -> bool:
    """Tell whether a source key goes to the store.

    It has all that concerns text, and tells the model's facts on its own, vocab_size too, of which
    the core has another one. Keys of shards stay in the core: a store is one file.
    """
    if key.name.startswith("split."):
        return False
    return key.name.startswith(("general.", "tokenizer.")) or len(key.record) <= _SMALL


def _core_records(source: GGUFHeader, arch: str) -> list[bytes]:
    records = []
    for key in source.keys.values():
        if key.name == "tokenizer.ggml.model":
            records.append(encode_key(key.name, "no_vocab"))
        elif key.name != f"{arch}.vocab_size" and not key.name.startswith("tokenizer."):
            records.append(key.record)
    records.append(encode_key(f"{arch}.vocab_size", STUB_ROWS))
    if "general.description" not in source.keys:
        records.append(encode_key("general.description", _DESCRIPTION))
    return records


def _core_tensors(source: GGUFHeader, tables: tuple[Table, ...]) -> tuple[TensorSpec, ...]:
    """Tensors of the core, in the source's order: vocabulary tensors cut to their stub rows."""
    cut = {t.source.name for t in tables}
    specs = []
    for t in source.tensors.values():
        if t.name in cut:
            ne = (*t.ne[:-1], STUB_ROWS)
            specs.append(TensorSpec(t.name, t.type, ne, t.n_bytes // t.ne[-1] * STUB_ROWS))
        else:
            specs.append(TensorSpec(t.name, t.type, t.ne, t.n_bytes))
    return tuple(specs)
