"""Put a core and its vocabulary store together again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from vocabtailor_gguf.atomic import check_targets, create, temporary_files
from vocabtailor_gguf.errors import BadFileError, MismatchError
from vocabtailor_gguf.gguf.data import tensor_chunks
from vocabtailor_gguf.gguf.header import GGUFHeader, Tensor
from vocabtailor_gguf.gguf.keys import EMBEDDING, HEAD, SOURCE_SHA, TENSOR_SHA
from vocabtailor_gguf.gguf.pair import read_pair, sibling_store
from vocabtailor_gguf.gguf.write import TensorSpec, layout


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
    specs = [TensorSpec(t.name, t.type, t.ne, t.n_bytes) for t, _ in tensors]
    made = layout(_records(core, vocab), specs, core.alignment)
    check_targets(target, force=force, size=made.size)
    digest = hashlib.sha256(made.header)
    with temporary_files(target, force=force, patience=0) as (path,):
        with create(path, made.size) as out:
            out.write(made.header)
            at = len(made.header)
            for tensor, header in tensors:
                gap = b"\0" * (made.offsets[tensor.name] - at)
                out.write(gap)
                digest.update(gap)
                with open(header.path, "rb") as source:
                    for _, chunk in tensor_chunks(source, header.path, tensor):
                        out.write(chunk)
                        digest.update(chunk)
                at = made.offsets[tensor.name] + tensor.n_bytes
            digest.update(b"\0" * (made.size - at))
    sha256 = digest.hexdigest()
    return Merged(target, sha256, sha256 == core.get(SOURCE_SHA))


def _records(core: GGUFHeader, vocab: GGUFHeader) -> list[bytes]:
    """Key records in the source's order: the store's where it has them, else the core's."""
    order = vocab.get("vocabtailor.source.key_order")
    if not isinstance(order, list):
        raise BadFileError(f"{vocab.path}: key vocabtailor.source.key_order: missing")
    if len(set(order)) != len(order):
        raise BadFileError(f"{vocab.path}: key vocabtailor.source.key_order: a key appears twice")
    records = []
    for name in order:
        key = vocab.keys.get(name) or core.keys.get(name)
        if key is None:
            raise BadFileError(
                f"{vocab.path}: key {name}: missing from the core and from the store"
            )
        records.append(key.record)
    return records


def _tensors(core: GGUFHeader, vocab: GGUFHeader) -> list[tuple[Tensor, GGUFHeader]]:
    """Tensors in the source's order; a head that the split added follows the embedding."""
    order = vocab.get("vocabtailor.source.tensor_order")
    if not isinstance(order, list):
        raise BadFileError(f"{vocab.path}: key vocabtailor.source.tensor_order: missing")
    if sorted(order) != sorted(core.tensors) or not {*vocab.tensors} <= {*order, HEAD}:
        raise BadFileError(
            f"{vocab.path}: key vocabtailor.source.tensor_order: lists other tensors than "
            f"{core.path} has"
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
