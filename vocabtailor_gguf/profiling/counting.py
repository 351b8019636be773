"""Stage 1: in how many documents an output needs a token that its prompt lacks.

Tokenising is the cost, so it runs in one process per core; what comes back are counts, and memory
does not grow with the corpus.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.atomic import temporary_files
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import BadFileError, MismatchError
from vocabtailor_gguf.profiling.inputs import Example
from vocabtailor_gguf.profiling.workers import dask_executor, process_executor
from vocabtailor_gguf.reading import MAX_VALUES, read_json
from vocabtailor_gguf.runtime.tokenizer import load_tokenizer

_BATCH_CHARACTERS = 200_000  # handed to a worker at once
_FORMAT = "vocabtailor.counts"


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Document frequencies of a corpus. Counts of parts of a corpus can be added.

    Attributes:
        tokenizer: Fingerprint of the tokenizer.
        frequency: (n_vocab,) int64, documents whose output needs the token.
        n_documents: Documents.
        n_tokens: Output tokens.
        n_bytes: Bytes of prompts and outputs.
        input_aware: Whether tokens of the prompt were left out.
    """

    tokenizer: str
    frequency: npt.NDArray[np.int64]
    n_documents: int
    n_tokens: int
    n_bytes: int
    input_aware: bool

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both corpora.

        Raises:
            MismatchError: They are of different tokenizers or stages.
        """
        if (self.tokenizer, self.input_aware) != (other.tokenizer, other.input_aware):
            raise MismatchError("counts of different tokenizers or stages cannot be added")
        return Counts(
            self.tokenizer,
            self.frequency + other.frequency,
            self.n_documents + other.n_documents,
            self.n_tokens + other.n_tokens,
            self.n_bytes + other.n_bytes,
            self.input_aware,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the counts as JSON, atomically: ids and frequencies of the tokens that occur.

        Raises:
            BadFileError: The file cannot be written.
        """
        ids = np.flatnonzero(self.frequency)
        data = {
            "format": _FORMAT,
            "version": 1,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "n_vocab": int(self.frequency.size),
            "ids": ids.tolist(),
            "frequency": self.frequency[ids].tolist(),
        }
        with temporary_files(Path(path)) as (temporary,), open(temporary, "w") as f:
            json.dump(data, f)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Counts:
        """Read counts.

        Raises:
            BadFileError: The file cannot be read or is malformed.
        """
        data = read_json(path, max_values=2 * MAX_VALUES)
        try:
            if data["format"] != _FORMAT or data["version"] != 1:
                raise ValueError("not a file of counts")
            n_vocab, ids = data["n_vocab"], np.array(data["ids"], dtype=np.int64)
            values = np.array(data["frequency"], dtype=np.int64)
            numbers = (n_vocab, data["n_documents"], data["n_tokens"], data["n_bytes"])
            if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or n_vocab > 2**31:
                raise ValueError("a number is out of range")
            if ids.shape != values.shape or ids.ndim != 1 or (values < 1).any():
                raise ValueError("ids and frequencies do not fit")
            if ids.size and (ids[0] < 0 or ids[-1] >= n_vocab or (np.diff(ids) < 1).any()):
                raise ValueError("ids: expected ascending, less than n_vocab")
            frequency = np.zeros(n_vocab, dtype=np.int64)
            frequency[ids] = values
            return cls(str(data["tokenizer"]), frequency, *numbers[1:], bool(data["input_aware"]))
        except (ValueError, KeyError, TypeError, OverflowError) as e:
            raise BadFileError(f"{path}: {type(e).__name__}: {e}") from e


@dataclasses.dataclass(frozen=True)
class _Part:
    """What a worker gives back: tokens and in how many of its documents they are needed."""

    ids: npt.NDArray[np.int64]
    frequency: npt.NDArray[np.int64]
    n_documents: int
    n_tokens: int
    n_bytes: int


def count_batch(tokenizer: Any, batch: Sequence[Example], input_aware: bool) -> _Part:
    """Count one batch of examples."""
    needed: list[npt.NDArray[np.int64]] = []
    n_tokens = n_bytes = 0
    for example in batch:
        prompt, output = example.prompt.encode("utf-8"), example.output.encode("utf-8")
        ids = tokenizer.tokenize(output, add_bos=False)
        n_tokens += len(ids)
        n_bytes += len(output)
        wanted = set(ids)
        if input_aware and prompt:
            n_bytes += len(prompt)
            wanted -= set(tokenizer.tokenize(prompt, add_bos=False))
        needed.append(np.fromiter(wanted, dtype=np.int64, count=len(wanted)))
    ids, frequency = np.unique(np.concatenate(needed), return_counts=True)
    return _Part(ids, frequency.astype(np.int64), len(batch), n_tokens, n_bytes)


_tokenizers: dict[str, Any] = {}  # of a worker process
_loading = threading.Lock()


def _work(vocab_path: str, batch: Sequence[Example], input_aware: bool) -> _Part:
    """Count a batch in a worker, which keeps its tokenizer. Dask runs several threads in one."""
    with _loading:
        if vocab_path not in _tokenizers:
            _tokenizers[vocab_path] = load_tokenizer(vocab_path)
    return count_batch(_tokenizers[vocab_path], batch, input_aware)


def batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield examples in lists of about the same amount of text."""
    batch: list[Example] = []
    size = 0
    for example in examples:
        batch.append(example)
        size += len(example.prompt) + len(example.output)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def count(
    store: VocabStore,
    examples: Iterable[Example],
    *,
    input_aware: bool,
    n_processes: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Count a corpus.

    Args:
        store: The vocabulary.
        examples: The corpus, read here as it is needed.
        input_aware: Leave out tokens of the prompt.
        n_processes: Processes that tokenise; by default one per core, 1 for none but this.
        scheduler: Address of a Dask scheduler whose workers tokenise instead. They open the store
            under the same path; the text is sent to them.
        progress: Called with documents and bytes so far.

    Returns:
        The counts.

    Raises:
        UnsupportedError: The package ``distributed`` is not installed.
        VocabTailorError: The scheduler or the workers do not answer.
    """
    frequency = np.zeros(store.n_vocab, dtype=np.int64)
    n_documents = n_tokens = n_bytes = 0
    for part in _parts(store, batches(examples), input_aware, n_processes, scheduler):
        frequency[part.ids] += part.frequency
        n_documents += part.n_documents
        n_tokens += part.n_tokens
        n_bytes += part.n_bytes
        if progress is not None:
            progress(n_documents, n_bytes)
    return Counts(store.tokenizer_sha256, frequency, n_documents, n_tokens, n_bytes, input_aware)


def _parts(
    store: VocabStore,
    todo: Iterator[list[Example]],
    input_aware: bool,
    n_processes: int | None,
    scheduler: str | None,
) -> Iterator[_Part]:
    first = list(itertools.islice(todo, 2))
    batches = itertools.chain(first, todo)
    n = n_processes or os.cpu_count() or 1
    # one batch is not worth starting processes for
    if scheduler is None and (n == 1 or len(first) < 2):
        tokenizer = load_tokenizer(store.path)
        for batch in batches:
            yield count_batch(tokenizer, batch, input_aware)
        tokenizer.close()
        return
    workers = process_executor(n) if scheduler is None else dask_executor(scheduler)
    with workers as (executor, n_workers):
        pending: collections.deque[Future[_Part]] = collections.deque()
        for batch in batches:
            pending.append(executor.submit(_work, str(store.path), batch, input_aware))
            if len(pending) > 3 * n_workers:  # a bound on the text that is held
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
