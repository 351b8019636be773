"""A core and its vocabulary store: where they lie, and whether they belong together."""

from __future__ import annotations

import os
from pathlib import Path

from vocabtailor_gguf.errors import BadFileError, MismatchError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.keys import EMBEDDING, PAIR_ID, SOURCE_SHA

_MAX_STUB_ROWS = 4096
_PAIR_KEYS = (
    "general.architecture",
    PAIR_ID,
    SOURCE_SHA,
    "vocabtailor.n_vocab",
    "vocabtailor.n_embd",
    "vocabtailor.tied",
    "vocabtailor.stub_rows",
)


def read_pair(
    core_path: str | os.PathLike[str], vocab_path: str | os.PathLike[str]
) -> tuple[GGUFHeader, GGUFHeader]:
    """Read the headers of a core and a store and check that they belong together.

    Raises:
        BadFileError: A file is malformed.
        MismatchError: They are not a core and its store.
    """
    core, vocab = read_core(core_path), GGUFHeader(vocab_path)
    found = vocab.get("vocabtailor.kind")
    if found != "vocab":
        raise MismatchError(
            f"{vocab.path}: key vocabtailor.kind: found {found!r}, expected 'vocab'"
        )
    for key in _PAIR_KEYS:
        ours, theirs = core.get(key), vocab.get(key)
        if ours is None or ours != theirs:
            raise MismatchError(
                f"{core.path} and {vocab.path} do not belong together: key {key}: "
                f"found {ours!r} and {theirs!r}"
            )
    return core, vocab


def sibling_store(core_path: str | os.PathLike[str]) -> Path:
    """Return the path of the store that lies beside ``NAME.core.gguf``."""
    core = Path(core_path)
    if not core.name.endswith(".core.gguf"):
        raise BadFileError(f"{core}: expected NAME.core.gguf, or the store's path beside it")
    return core.with_name(core.name.removesuffix(".core.gguf") + ".vocab.gguf")


def read_core(path: str | os.PathLike[str]) -> GGUFHeader:
    """Read the header of a core and check that its vocabulary is the stub it should be.

    llama.cpp allocates by ``vocab_size`` before it looks at the tensors, so this comes first.

    Raises:
        BadFileError: The file is malformed.
        MismatchError: It is not a core.
    """
    core = GGUFHeader(path)
    kind = core.get("vocabtailor.kind")
    if kind != "core":
        found = "an unsplit model" if kind is None else f"key vocabtailor.kind is {kind!r}"
        raise MismatchError(f"{core.path}: {found}, expected the core of a split model")
    arch = core.require("general.architecture", str)
    stubs = core.require("vocabtailor.stub_rows", int)
    size = core.require(f"{arch}.vocab_size", int)
    table = core.tensors.get(EMBEDDING)
    rows = table.ne[-1] if table else 0
    if not 0 < stubs <= _MAX_STUB_ROWS or stubs != size or stubs != rows:
        raise BadFileError(
            f"{core.path}: {stubs} stub rows, vocab_size {size} and {rows} rows of {EMBEDDING}, "
            f"expected the same number up to {_MAX_STUB_ROWS}"
        )
    return core
