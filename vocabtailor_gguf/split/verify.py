"""Check that a core and a store are whole and belong together."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.gguf.data import tensor_chunks
from vocabtailor_gguf.gguf.header import GGUFHeader, Tensor
from vocabtailor_gguf.gguf.keys import TENSOR_SHA
from vocabtailor_gguf.gguf.pair import read_pair, sibling_store
from vocabtailor_gguf.record import Record
from vocabtailor_gguf.split.proof import Proof, prove_split

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclasses.dataclass(frozen=True)
class Verification(Record):
    """What was found to be right.

    Attributes:
        pair_id: Of both files.
        tensors: Vocabulary tensors whose sha256 is the recorded one.
        proof: The comparison with the source model, where one was given.
    """

    pair_id: str
    tensors: tuple[str, ...]
    proof: Proof | None


def verify_model(
    core_path: str | os.PathLike[str],
    vocab_path: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Verify a split model: headers, pair, checksums and values of the tables.

    Args:
        core_path: ``NAME.core.gguf``.
        vocab_path: ``NAME.vocab.gguf``; by default the one beside the core.
        source: The unsplit model; then the proof of the split is run again.
        progress: Called with bytes done and bytes in all.

    Raises:
        BadFileError: A file is damaged; the text says where.
        MismatchError: The files do not belong together.
        VocabTailorError: The split model differs from `source`.

    Example:
        >>> verify_model(CORE).tensors
        ('token_embd.weight',)
    """
    core, vocab = read_pair(core_path, vocab_path or sibling_store(core_path))
    total = sum(t.n_bytes for t in vocab.tensors.values())
    done = 0
    for tensor in vocab.tensors.values():
        if tensor.name not in TENSOR_SHA:
            raise BadFileError(f"{vocab.path}: tensor {tensor.name}: unexpected in a store")
        recorded = vocab.require(TENSOR_SHA[tensor.name], str)
        found = _sha256(vocab, tensor, done, total, progress)
        if found != recorded:
            raise BadFileError(
                f"{vocab.path}: tensor {tensor.name}: sha256 {found}, recorded {recorded}"
            )
        done += tensor.n_bytes
    with VocabStore(vocab.path) as store:
        store.validate_data()
        pair_id = store.pair_id
    proof = None
    if source is not None:
        changed = any(
            GGUFHeader(source, lenient=True).tensors.get(name, tensor).type != tensor.type
            for name, tensor in vocab.tensors.items()
        )
        proof = prove_split(Path(source), core.path, vocab.path, requantized=changed)
    return Verification(pair_id, tuple(vocab.tensors), proof)


def _sha256(
    header: GGUFHeader, tensor: Tensor, done: int, total: int, progress: Progress | None
) -> str:
    digest = hashlib.sha256()
    with open(header.path, "rb") as f:
        for start, chunk in tensor_chunks(f, header.path, tensor):
            digest.update(chunk)
            if progress is not None:
                progress(done + start + len(chunk), total)
    return digest.hexdigest()
