"""From a corpus to a static token set: count, script, tolerance, and what each stage left."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.profiling.counting import Counts, count
from vocabtailor_gguf.profiling.inputs import BadRecord, Example, examples, expand
from vocabtailor_gguf.profiling.languages import word_examples
from vocabtailor_gguf.profiling.scripts import DEFAULT_CLASSES, in_scripts, script_pattern
from vocabtailor_gguf.profiling.tasks import Task, get_task
from vocabtailor_gguf.profiling.thresholds import keep_rows, keep_within
from vocabtailor_gguf.store import VocabStore
from vocabtailor_gguf.token_set import TokenSet
from vocabtailor_gguf.vocabulary import always_on, load_tokenizer, token_pieces

Progress = Callable[[int, int], None]  # documents, bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """A corpus that has been counted; sets at any tolerance follow without reading it again.

    Attributes:
        counts: Document frequencies after stage 1.
        always_on: (n,) ids that are active anyway and are kept out of the set.
        in_script: (n_vocab,) bool, what stage 2 keeps; all True where it is off.
        words: (n,) ids of language word lists, which the tolerance does not touch.
        source: For the provenance: files, task, scripts, languages.
        n_skipped: Bad records that were left out.
    """

    counts: Counts
    always_on: npt.NDArray[np.int32]
    in_script: npt.NDArray[np.bool_]
    words: npt.NDArray[np.int32]
    source: dict[str, object]
    n_skipped: int = 0

    @property
    def frequency(self) -> npt.NDArray[np.int64]:
        """(n_vocab,) document frequencies after stage 2, without always-on tokens."""
        kept = np.where(self.in_script, self.counts.frequency, 0)
        kept[self.always_on] = 0
        return kept

    def at_tolerance(self, tolerance: float) -> TokenSet:
        """Return the set at a tolerance.

        Raises:
            VocabTailorError: The tolerance is out of range, or nothing is left.
        """
        if not 0 <= tolerance <= 1:
            raise VocabTailorError(f"tolerance {tolerance}: expected 0 to 1")
        kept = keep_within(self.frequency, self.counts.n_documents, tolerance)
        return self._token_set(kept, tolerance)

    def with_rows(self, n_rows: int) -> TokenSet:
        """Return the set with at most `n_rows` rows, words included."""
        frequency = self.frequency
        frequency[self.words] = 0
        budget = max(0, n_rows - self.words.size)
        kept, tolerance = keep_rows(frequency, self.counts.n_documents, budget)
        return self._token_set(kept, tolerance)

    def stages(self, tolerance: float) -> dict[str, int]:
        """Return how many ids each stage leaves."""
        occurring = self.counts.frequency > 0
        kept = keep_within(self.frequency, self.counts.n_documents, tolerance)
        return {
            "input_aware" if self.counts.input_aware else "corpus": int(occurring.sum()),
            "script": int((occurring & self.in_script).sum()),
            "less_always_on": int((self.frequency > 0).sum()),
            "tolerance": int(kept.size),
            "with_words": int(np.union1d(kept, self.words).size),
        }

    def _token_set(self, kept: npt.NDArray[np.int32], tolerance: float) -> TokenSet:
        ids = np.union1d(kept, self.words)
        if ids.size == 0:
            raise VocabTailorError("profile: no token is left; the set would be empty")
        provenance = {
            **self.source,
            "tolerance": tolerance,
            "documents": self.counts.n_documents,
            "output_tokens": self.counts.n_tokens,
            "skipped": self.n_skipped,
            "stages": self.stages(tolerance),
        }
        return TokenSet(ids, self.counts.tokenizer, provenance)


def profile(
    vocab_path: str | os.PathLike[str],
    data: Sequence[str] = (),
    *,
    task: Task,
    scripts: Sequence[str] = (),
    classes: Sequence[str] = DEFAULT_CLASSES,
    languages: Sequence[str] = (),
    n_words: int = 20_000,
    counts: Counts | None = None,
    n_processes: int | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Profile:
    """Count a corpus and prepare its stages.

    Args:
        vocab_path: ``NAME.vocab.gguf``.
        data: Files, globs, or "-" for JSONL on standard input.
        task: Fields and templates.
        scripts: Unicode scripts of stage 2; none switches it off.
        classes: Characters that are kept beside the scripts.
        languages: Codes of wordfreq's lists whose words join the set.
        n_words: Words of each language.
        counts: Counts of an earlier run, to which these are added.
        n_processes: Processes that tokenise; by default one per core.
        skip_bad: Leave out bad records and count them, instead of stopping.
        progress: Called with documents and bytes so far.

    Raises:
        BadFileError: A file or a record cannot be used.
        VocabTailorError: An argument is wrong.
    """
    if not (data or languages or counts):
        raise VocabTailorError("profile: neither data nor languages nor counts are given")
    skipped: list[BadRecord] = []
    with VocabStore(vocab_path) as store:
        corpus = _corpus(expand(data), task, skipped if skip_bad else None)
        found = count(
            store,
            corpus if task.static else iter(()),
            input_aware=task.input_aware,
            n_processes=n_processes,
            progress=progress,
        )
        found = found if counts is None else found + counts
        tokenizer = load_tokenizer(vocab_path)
        kept = np.ones(store.n_vocab, dtype=np.bool_)
        if scripts:
            kept = in_scripts(token_pieces(tokenizer), script_pattern(scripts, classes))
        on = always_on(tokenizer._model.vocab)
        tokenizer.close()
        words = np.empty(0, dtype=np.int32)
        if languages:
            listed = count(
                store,
                word_examples(languages, n_words),
                input_aware=False,
                n_processes=n_processes,
            )
            words = np.flatnonzero((listed.frequency > 0) & kept).astype(np.int32)
            words = np.setdiff1d(words, on)
    source: dict[str, object] = {"data": list(data), "scripts": list(scripts)}
    if languages:
        source |= {"languages": list(languages), "words": n_words}
    return Profile(found, on, kept, words, source, len(skipped))


def _corpus(names: Iterable[str], task: Task, skipped: list[BadRecord] | None) -> Iterator[Example]:
    for name in names:
        yield from examples(name, task, skipped=None if skipped is None else skipped.append)


def profile_corpus(
    vocab_path: str | os.PathLike[str],
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    input_field: str | None = None,
    output_field: str | None = None,
    task: str | None = None,
    script: str | Sequence[str] = (),
    tolerance: float = 0.01,
    rows: int | None = None,
    languages: Sequence[str] = (),
    n_words: int = 20_000,
    n_processes: int | None = None,
    skip_bad: bool = False,
) -> TokenSet:
    """Profile a corpus into a static token set.

    Args:
        vocab_path: ``NAME.vocab.gguf``.
        data: A file, a glob or several: JSONL, JSON, CSV, TSV, Parquet, text; .gz and .zst too.
        input_field: Field of the text that is given; None for data without inputs.
        output_field: Field of the text that is wanted.
        task: A preset of fields and templates: translation, summarisation, extraction, code,
            maths or text. By default what the fields say: translation with an input, else text.
        script: Unicode scripts to keep, such as ``"latin"``; none keeps all.
        tolerance: Share of documents that may lose a token (stage 3).
        rows: A budget of rows instead of a tolerance.
        languages: Languages whose word lists join the set.
        n_words: Words of each language.
        n_processes: Processes that tokenise; by default one per core.
        skip_bad: Leave out bad records instead of stopping.

    Returns:
        The set; always-on tokens are not in it. Its provenance has the counts of each stage.

    Raises:
        BadFileError: A file or a record cannot be used.
        VocabTailorError: An argument is wrong.

    Example:
        >>> import json
        >>> line = json.dumps({"source": "good", "target": "bello bello"})
        >>> _ = (OUT / "train.jsonl").write_text(line)
        >>> ts = profile_corpus(VOCAB, OUT / "train.jsonl", task="translation", tolerance=0)
        >>> len(ts) > 0
        True
    """
    name = task or ("translation" if input_field else "text")
    chosen = get_task(name, input_field=input_field, output_field=output_field)
    files = [data] if isinstance(data, str | os.PathLike) else list(data)
    found = profile(
        vocab_path,
        [os.fspath(f) for f in files],
        task=chosen,
        scripts=[script] if isinstance(script, str) else script,
        languages=languages,
        n_words=n_words,
        n_processes=n_processes,
        skip_bad=skip_bad,
    )
    return found.at_tolerance(tolerance) if rows is None else found.with_rows(rows)


def rows_of_budget(store: VocabStore, megabytes: float) -> int:
    """Return how many head rows fit into a budget of memory (1 MB = 10**6 bytes)."""
    return int(megabytes * 1e6 // store.head_row_bytes)
