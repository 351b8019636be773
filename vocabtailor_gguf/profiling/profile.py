"""From a corpus to a static token set: count, script, tolerance, and what each stage left."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.profiling.counting import Counts, count
from vocabtailor_gguf.profiling.inputs import BadRecord, Example, examples, expand
from vocabtailor_gguf.profiling.languages import word_tokens
from vocabtailor_gguf.profiling.scripts import (
    DEFAULT_CLASSES,
    in_same_scripts,
    in_scripts,
    script_pattern,
)
from vocabtailor_gguf.profiling.tasks import Task
from vocabtailor_gguf.profiling.thresholds import (
    keep_rows,
    keep_within,
    most_frequent_first,
)
from vocabtailor_gguf.runtime.tokenizer import Tokenizer, always_on, load_tokenizer
from vocabtailor_gguf.sets.token_set import TokenSet

Progress = Callable[[int, int], None]  # documents, bytes


class NoTokenLeftError(VocabTailorError):
    """A set would have no token."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A size of a token set that measurements have shown to be good.

    Attributes:
        share: Head rows, always-on ones included, as a share of the vocabulary; None to take only
            what the corpus gives at the tolerance.
        tolerance: Share of documents that may lose a token, where `share` is None.
    """

    share: float | None
    tolerance: float = 0.01


# docs/measurements.md has the curves these come from
RECIPES = {"small": Recipe(None), "balanced": Recipe(0.12), "wide": Recipe(0.25)}


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """A corpus that has been counted; sets of any size follow without reading it again.

    Attributes:
        counts: Document frequencies after stage 1.
        always_on: (n,) ids that are active anyway and are kept out of the set.
        in_script: (n_vocab,) bool, what stage 2 keeps; all True where it is off.
        words: (n,) ids of language word lists, those that weigh most first. The tolerance does
            not touch them.
        fill: (n,) ids outside `always_on` that may complete a set, in the tokenizer's own order.
        source: For the provenance: files, task, scripts, languages.
        n_skipped: Bad records that were left out.
    """

    counts: Counts
    always_on: npt.NDArray[np.int32]
    in_script: npt.NDArray[np.bool_]
    words: npt.NDArray[np.int32]
    fill: npt.NDArray[np.int32]
    source: dict[str, object]
    n_skipped: int = 0

    @property
    def data(self) -> list[str]:
        """Files of the corpus."""
        data = self.source["data"]
        assert isinstance(data, list)
        return data

    @functools.cached_property
    def frequency(self) -> npt.NDArray[np.int64]:
        """(n_vocab,) document frequencies after stage 2, without always-on tokens."""
        kept = np.where(self.in_script, self.counts.frequency, 0)
        kept[self.always_on] = 0
        return kept

    @functools.cached_property
    def ranking(self) -> npt.NDArray[np.int32]:
        """(n,) int32 every id outside `always_on`, the one most worth its row first.

        First tokens of the corpus by document frequency, then tokens of word lists, then `fill`.
        """
        corpus = most_frequent_first(self.frequency)
        rest = np.setdiff1d(np.arange(self.frequency.size, dtype=np.int32), self.always_on)
        ordered = np.concatenate([corpus, self.words, self.fill, rest])
        _, first = np.unique(ordered, return_index=True)
        return ordered[np.sort(first)]

    @property
    def n_known(self) -> int:
        """Ids at the head of `ranking` that the corpus or a word list names."""
        return int(np.union1d(np.flatnonzero(self.frequency), self.words).size)

    def at_tolerance(self, tolerance: float) -> TokenSet:
        """Return the set at a tolerance.

        Raises:
            NoTokenLeftError: Nothing is left.
            VocabTailorError: The tolerance is out of range.
        """
        if not 0 <= tolerance <= 1:
            raise VocabTailorError(f"tolerance {tolerance}: expected 0 to 1")
        kept = keep_within(self.frequency, self.counts.n_documents, tolerance)
        return self._token_set(kept, np.union1d(kept, self.words), tolerance)

    def with_rows(self, n_rows: int, *, fill: bool = False) -> TokenSet:
        """Return the set with at most `n_rows` rows.

        Args:
            n_rows: Rows beside the always-on ones.
            fill: Take tokens that neither the corpus nor a word list names to reach `n_rows`.

        Raises:
            NoTokenLeftError: Nothing is left.
        """
        kept, tolerance = keep_rows(self.frequency, self.counts.n_documents, n_rows)
        ids = self.ranking[: n_rows if fill else min(n_rows, self.n_known)]
        return self._token_set(kept, np.sort(ids), tolerance)

    def of_recipe(self, name: str) -> TokenSet:
        """Return the set of a recipe.

        Raises:
            NoTokenLeftError: Nothing is left.
            VocabTailorError: There is no such recipe.
        """
        if name not in RECIPES:
            raise VocabTailorError(f"recipe {name!r}: expected one of {', '.join(RECIPES)}")
        recipe = RECIPES[name]
        if recipe.share is None:
            kept = keep_within(self.frequency, self.counts.n_documents, recipe.tolerance)
            chosen = self._token_set(kept, kept, recipe.tolerance)
        else:
            n_rows = int(recipe.share * self.frequency.size) - self.always_on.size
            chosen = self.with_rows(max(0, n_rows), fill=True)
        return TokenSet(chosen.ids, chosen.tokenizer, {**chosen.provenance, "recipe": name})

    def _token_set(
        self, kept: npt.NDArray[np.int32], ids: npt.NDArray[np.int32], tolerance: float
    ) -> TokenSet:
        if ids.size == 0:
            raise NoTokenLeftError("profile: no token is left; the set would be empty")
        occurring = self.counts.frequency > 0
        stages = {
            "input_aware" if self.counts.input_aware else "corpus": int(occurring.sum()),
            "script": int((occurring & self.in_script).sum()),
            "less_always_on": int((self.frequency > 0).sum()),
            "tolerance": int(kept.size),
            "with_words": int(np.intersect1d(ids, np.union1d(kept, self.words)).size),
            "with_fill": int(ids.size),
        }
        provenance = {
            **self.source,
            "tolerance": tolerance,
            "documents": self.counts.n_documents,
            "output_tokens": self.counts.n_tokens,
            "skipped": self.n_skipped,
            "stages": stages,
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
    scheduler: str | None = None,
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
        scheduler: Address of a Dask scheduler whose workers tokenise instead.
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
            scheduler=scheduler,
            progress=progress,
        )
        found = found if counts is None else found + counts
        tokenizer = load_tokenizer(vocab_path)
        on = always_on(tokenizer._model.vocab)
        pieces = Tokenizer(tokenizer._model).pieces()
        words = np.empty(0, dtype=np.int32)
        if languages:
            words = word_tokens(tokenizer, languages, n_words)
        tokenizer.close()
    kept = np.ones(len(pieces), dtype=np.bool_)
    if scripts:
        kept = in_scripts(pieces, script_pattern(scripts, classes))
    words = words[kept[words] & ~np.isin(words, on)]
    source: dict[str, object] = {"data": list(data), "scripts": list(scripts)}
    if languages:
        source |= {"languages": list(languages), "words": n_words}
    same = kept if scripts else in_same_scripts(pieces, found.frequency, words)
    fill = np.setdiff1d(np.flatnonzero(same), on).astype(np.int32)
    return Profile(found, on, kept, words, fill, source, len(skipped))


def _corpus(names: Iterable[str], task: Task, skipped: list[BadRecord] | None) -> Iterator[Example]:
    for name in names:
        yield from examples(name, task, skipped=None if skipped is None else skipped.append)


def rows_of_budget(store: VocabStore, megabytes: float) -> int:
    """Return how many head rows fit into a budget of memory (1 MB = 10**6 bytes)."""
    return int(megabytes * 1e6 // store.head_row_bytes)
