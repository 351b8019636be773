"""Put a core and its vocabulary store together again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vocabtailor_gguf.atomic import check_targets, create, temporary_files
from vocabtailor_gguf.errors import BadFileError, MismatchError
from vocabtailor_gguf.gguf.data import tensor_chunks
from vocabtailor_gguf.gguf.header import GGUFHeader, Tensor, first_string
from vocabtailor_gguf.gguf.keys import (
    EMBEDDING,
    HEAD,
    KEY_ORDER,
    ODD_KEYS,
    ODD_TENSORS,
    SOURCE_ALIGNMENT,
    SOURCE_PADDING,
    SOURCE_SHA,
    SOURCE_SIZE,
    SOURCE_VERSION,
    TENSOR_ORDER,
    TENSOR_SHA,
)
from vocabtailor_gguf.gguf.pair import read_pair, sibling_store
from vocabtailor_gguf.gguf.source import MAX_FILLER, strings
from vocabtailor_gguf.gguf.write import TensorSpec, layout

_ZEROS = 1 << 20  # bytes written at once


@dataclass(frozen=True)
class Merged:
    """A merged model.

    Attributes:
        path: The file.
        sha256: Of the file.
        identical: Whether it is the source of the split, byte for byte.
    """

    path: Path
    sha256: str
    identical: bool


def merge_model(
    core_path: str | os.PathLike[str],
    vocab_path: str | os.PathLike[str] | None,
    out_path: str | os.PathLike[str],
    force: bool = False,
) -> Merged:
    """Write the model that a core and its store came from.

    Where no table was requantised the result is the source, byte for byte; its sha256 is compared
    with the recorded one.

    Args:
        core_path: ``NAME.core.gguf``.
        vocab_path: ``NAME.vocab.gguf``; by default the one beside the core.
        out_path: The file to write.
        force: Overwrite a file that exists.

    Raises:
        BadFileError: A file is malformed or cannot be written.
        MismatchError: The files do not belong together.

    Example:
        >>> merged = merge_model(CORE, VOCAB, OUT / "merged.gguf", force=True)
        >>> merged.identical
        True
    """
    core, vocab = read_pair(core_path, vocab_path or sibling_store(core_path))
    if core.alignment != vocab.alignment:
        raise MismatchError(
            f"{core.path} and {vocab.path} do not belong together: alignment "
            f"{core.alignment} and {vocab.alignment}"
        )
    target = Path(out_path)
    if target.exists() and any(target.samefile(h.path) for h in (core, vocab)):
        raise BadFileError(f"{target}: is one of the files to merge")
    tensors = _tensors(core, vocab)
    shapes = {first_string(r).split(b"\0")[0]: r for r in strings(vocab, ODD_TENSORS)}
    specs = [
        TensorSpec(t.name, t.type, t.ne, t.n_bytes, shapes.get(t.name.encode(), b""))
        for t, _ in tensors
    ]
    made = layout(
        _records(core, vocab),
        specs,
        _own_number(vocab, SOURCE_ALIGNMENT, core.alignment, MAX_FILLER),
        version=_own_number(vocab, SOURCE_VERSION, 3, 3),
    )
    gaps = iter(strings(vocab, SOURCE_PADDING))
    last = tensors[-1][0]
    end = made.offsets[last.name] + last.n_bytes
    size = max(end, _own_number(vocab, SOURCE_SIZE, made.size, 2**62))
    check_targets(target, force=force, size=size)
    with temporary_files(target, force=force, patience=0) as (path,):
        with create(path, size) as file:
            out = _Output(file)
            out.write(made.header[: made.n_header])
            for tensor, header in tensors:
                out.fill(next(gaps, b""), made.offsets[tensor.name])
                with open(header.path, "rb") as source:
                    for _, chunk in tensor_chunks(source, header.path, tensor):
                        out.write(chunk)
            out.fill(next(gaps, b""), size)
        _check_merged(path, vocab)
    sha256 = out.digest.hexdigest()
    return Merged(target, sha256, sha256 == core.get(SOURCE_SHA))


class _Output:
    """A file that is written from its begin to its end, and the sha256 of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._at = 0

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.digest.update(data)
        self._at += len(data)

    def fill(self, found: bytes, end: int) -> None:
        """Write what stood between tensors, then zeros up to the byte `end`."""
        self.write(found[: end - self._at])
        while self._at < end:
            self.write(bytes(min(_ZEROS, end - self._at)))


def _check_merged(path: Path, vocab: GGUFHeader) -> None:
    """Check that what the store keeps of an odd source gives a file that can be read."""
    try:
        GGUFHeader(path, lenient=True)
    except BadFileError as e:
        told = str(e).removeprefix(f"{path}: ")
        raise BadFileError(f"{vocab.path}: does not give a GGUF file: {told}") from e


def _own_number(vocab: GGUFHeader, name: str, default: int, most: int) -> int:
    value = vocab.get(name, default)
    if type(value) is not int or not 0 < value <= most:
        raise BadFileError(f"{vocab.path}: key {name}: found {value!r}, expected 1 to {most}")
    return value


def _records(core: GGUFHeader, vocab: GGUFHeader) -> list[bytes]:
    """Key records in the source's order: the store's where it has them, else the core's."""
    order = _order(vocab, KEY_ORDER)
    if len(set(order)) != len(order):
        raise BadFileError(f"{vocab.path}: key {KEY_ORDER}: a key appears twice")
    odd = {first_string(r): r for r in strings(vocab, ODD_KEYS)}
    records = []
    for raw in order:
        name = raw.decode("utf-8", errors="surrogateescape")
        key = vocab.keys.get(name) or core.keys.get(name)
        if raw not in odd and key is None:
            raise BadFileError(
                f"{vocab.path}: key {name!r}: missing from the core and from the store"
            )
        records.append(odd[raw] if key is None or raw in odd else key.record)
    return records


def _tensors(core: GGUFHeader, vocab: GGUFHeader) -> list[tuple[Tensor, GGUFHeader]]:
    """Tensors in the source's order; a head that the split added follows the embedding."""
    order = [n.decode("utf-8", errors="replace") for n in _order(vocab, TENSOR_ORDER)]
    if sorted(order) != sorted(core.tensors) or not {*vocab.tensors} <= {*order, HEAD}:
        raise BadFileError(
            f"{vocab.path}: key {TENSOR_ORDER}: lists other tensors than {core.path} has"
        )
    if HEAD in vocab.tensors and HEAD not in order:
        order.insert(order.index(EMBEDDING) + 1, HEAD)
    found = []
    for name in order:
        header = vocab if name in TENSOR_SHA else core
        if name not in header.tensors:
            raise BadFileError(f"{header.path}: tensor {name}: missing")
        found.append((header.tensors[name], header))
    return found


def _order(vocab: GGUFHeader, name: str) -> list[bytes]:
    if name not in vocab.keys:
        raise BadFileError(f"{vocab.path}: key {name}: missing")
    return strings(vocab, name)
