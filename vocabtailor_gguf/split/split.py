"""Split a GGUF model into a core and a vocabulary store, in one pass over the source."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vocabtailor_gguf.atomic import check_targets, create, temporary_files
from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.types import parse_type
from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError
from vocabtailor_gguf.gguf.data import read_exactly, tensor_chunks
from vocabtailor_gguf.gguf.keys import PAIR_ID, SOURCE_SHA, STUB_ROWS, TENSOR_SHA
from vocabtailor_gguf.gguf.write import MAX_HEADER, Layout, layout
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.split.plan import SplitPlan, Table, plan_split, with_known
from vocabtailor_gguf.split.proof import Proof, prove_split

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class SplitFiles:
    """The two files of a split model.

    Attributes:
        core: ``NAME.core.gguf``.
        vocab: ``NAME.vocab.gguf``.
        proof: What was compared with the unsplit model before the files got their names.
    """

    core: Path
    vocab: Path
    proof: Proof


def split_model(
    model_path: str | os.PathLike[str],
    out_dir: str | os.PathLike[str] | None = None,
    token_embedding_type: str | None = None,
    output_tensor_type: str | None = None,
    force: bool = False,
    *,
    progress: Progress | None = None,
) -> SplitFiles:
    """Split `model_path` into ``NAME.core.gguf`` and ``NAME.vocab.gguf``, and prove it.

    The files get their names only after llama.cpp, run on sample tokens, has given the same bits
    from the split model as from the unsplit one.

    Args:
        model_path: A GGUF model in one file.
        out_dir: Target folder, made if need be; the model's own folder by default.
        token_embedding_type: ggml type for the token embedding, such as ``"q5_0"``; by default the
            source's bytes are kept.
        output_tensor_type: ggml type for the LM head. On a tied model a type other than the
            embedding's makes it untied.
        force: Overwrite files that exist.
        progress: Called with bytes read and bytes in all.

    Returns:
        Paths of both files, and the proof.

    Raises:
        BadFileError: The model is malformed, or a file cannot be written.
        UnsupportedError: The model cannot be split; the text says why.
        VocabTailorError: The split model differs from the unsplit one; the text says where.

    Example:
        >>> files = split_model(MODEL, OUT, force=True)
        >>> files.vocab.name.endswith(".vocab.gguf")
        True
    """
    source = Path(model_path)
    try:
        types = [
            None if t is None else parse_type(t) for t in (token_embedding_type, output_tensor_type)
        ]
    except ValueError as e:
        raise VocabTailorError(str(e)) from e
    backend.check_path(source)  # rather than after all has been written
    plan = plan_split(source, embedding_type=types[0], output_type=types[1])
    folder = source.parent if out_dir is None else Path(out_dir)
    name = source.name.removesuffix(".gguf")
    targets = (folder / f"{name}.core.gguf", folder / f"{name}.vocab.gguf")
    alignment = plan.source.alignment
    core = layout(plan.core_records, plan.core_tensors, alignment)
    vocab = layout(plan.vocab_records, plan.vocab_tensors, alignment)
    for made in (core, vocab):
        if made.n_header > MAX_HEADER:
            raise UnsupportedError(
                f"{source}: a header of {made.n_header:,} bytes would be needed, expected at most "
                f"{MAX_HEADER >> 20} MiB"
            )
    check_targets(*targets, force=force, size=core.size + vocab.size)
    with temporary_files(*targets, force=force, patience=0) as (core_path, vocab_path):
        _write(plan, core, vocab, core_path, vocab_path, progress)
        proof = prove_split(source, core_path, vocab_path, requantized=plan.requantized)
        logger.info("%s: %s", source, proof)
    return SplitFiles(*targets, proof)


class _TableWriter:
    """Takes the source's bytes of a table and writes them, converted where asked, to the store."""

    def __init__(self, table: Table, file: BinaryIO, offset: int) -> None:
        self.table = table
        self.digest = hashlib.sha256()
        self._file = file
        self._offset = offset
        self._n_threads = os.cpu_count() or 1

    def write(self, chunk: memoryview) -> None:
        source = self.table.source
        data: memoryview = chunk
        if self.table.requantized:
            n_rows = len(chunk) // source.row_bytes
            data = memoryview(bytearray(n_rows * (self.table.n_bytes // source.ne[1])))
            native.call(
                "vt_requantize",
                source.type,
                native.ffi.from_buffer("uint8_t[]", chunk),
                len(chunk),
                self.table.type,
                native.ffi.from_buffer("uint8_t[]", data, require_writable=True),
                len(data),
                n_rows,
                source.ne[0],
                self._n_threads,
            )
        self._file.seek(self._offset)
        self._file.write(data)
        self.digest.update(data)
        self._offset += len(data)


def _write(
    plan: SplitPlan,
    core: Layout,
    vocab: Layout,
    core_path: Path,
    vocab_path: Path,
    progress: Progress | None,
) -> None:
    digest = hashlib.sha256()
    path = plan.source.path
    with (
        open(path, "rb") as source,
        create(core_path, core.size) as core_file,
        create(vocab_path, vocab.size) as vocab_file,
    ):
        tables = [_TableWriter(t, vocab_file, vocab.offsets[t.name]) for t in plan.tables]
        at = 0
        for tensor in plan.source.tensors.values():
            digest.update(read_exactly(source, path, tensor.offset - at))
            mine = [w for w in tables if w.table.source.name == tensor.name]
            for start, chunk in tensor_chunks(source, path, tensor):
                digest.update(chunk)
                for writer in mine:
                    writer.write(chunk)
                stub = tensor.n_bytes // tensor.ne[-1] * STUB_ROWS if mine else tensor.n_bytes
                if start < stub:
                    core_file.seek(core.offsets[tensor.name] + start)
                    core_file.write(chunk[: stub - start])
                if progress is not None:
                    progress(tensor.offset + start + len(chunk), plan.source.file_size)
            at = tensor.offset + tensor.n_bytes
        digest.update(read_exactly(source, path, plan.source.file_size - at))

        known = {SOURCE_SHA: digest.hexdigest()}
        known |= {TENSOR_SHA[w.table.name]: w.digest.hexdigest() for w in tables}
        types = "".join(f"{w.table.name}:{w.table.type};" for w in tables)
        known[PAIR_ID] = hashlib.sha256((known[SOURCE_SHA] + types).encode()).hexdigest()[:32]
        alignment = plan.source.alignment
        for file, made, records, tensors in (
            (core_file, core, plan.core_records, plan.core_tensors),
            (vocab_file, vocab, plan.vocab_records, plan.vocab_tensors),
        ):
            header = layout(with_known(records, known), tensors, alignment).header
            if len(header) != len(made.header):
                raise VocabTailorError(
                    f"{path}: header of {len(header)} bytes, expected the planned "
                    f"{len(made.header)}"
                )
            file.seek(0)
            file.write(header)
