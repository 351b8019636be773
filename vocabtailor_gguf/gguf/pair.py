"""A core and its vocabulary store: where they lie, and whether they belong together."""

from __future__ import annotations

import os
from pathlib import Path

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import BadFileError, MismatchError
from vocabtailor_gguf.gguf.header import GGUFHeader

CORE_SUFFIX, VOCAB_SUFFIX = ".core.gguf", ".vocab.gguf"


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
    with VocabStore(vocab_path) as store:
        store.check_core(core_path)
    return core, vocab


def sibling_store(core_path: str | os.PathLike[str]) -> Path:
    """Return the path of the store that lies beside ``NAME.core.gguf``.

    Raises:
        BadFileError: The name is another one, or there is no such file.
        MismatchError: The file is not a core.
    """
    core = Path(core_path)
    if not core.name.endswith(CORE_SUFFIX):
        if not os.path.lexists(core):
            raise BadFileError(f"{core}: no such file, expected NAME.core.gguf")
        read_core(core)  # says what is wrong with most files that are given by mistake
        raise BadFileError(f"{core}: expected NAME.core.gguf, or the store's path beside it")
    return core.with_name(core.name.removesuffix(CORE_SUFFIX) + VOCAB_SUFFIX)


def split_kind(path: str | os.PathLike[str]) -> str | None:
    """Return "core" or "vocab" for a file of a split model, None for any other GGUF file.

    Raises:
        BadFileError: The file cannot be read, or is no GGUF file.
    """
    kind = GGUFHeader(path, lenient=True).get("vocabtailor.kind")
    return None if kind is None else str(kind)


def read_core(path: str | os.PathLike[str]) -> GGUFHeader:
    """Read the header of a core and check that its vocabulary is the stub it should be.

    llama.cpp allocates by ``vocab_size`` before it looks at the tensors, so this comes first.

    Raises:
        BadFileError: The file is malformed.
        MismatchError: It is not a core.
    """
    native.call("vt_core_check", native.encode_path(path), native.ffi.NULL)
    return GGUFHeader(path)
