"""Token sets of a task, profiled from its training rows."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.prompts import Prompter
from vocabtailor_gguf.evaluation.rows import Row
from vocabtailor_gguf.evaluation.variants import Variant, is_file, rows, tolerance
from vocabtailor_gguf.profiling.counting import count
from vocabtailor_gguf.profiling.inputs import Example
from vocabtailor_gguf.profiling.profile import NoTokenLeftError, Profile, profile
from vocabtailor_gguf.profiling.tasks import Task
from vocabtailor_gguf.sets.token_set import TokenSet


class TaskSets:
    """Gives the sets of variants; the training rows are counted once for each kind.

    Sets of tailored and exact mode are of tokens that the outputs have and their prompts lack
    (stage 1). A pruned vocabulary must hold prompts and outputs, so all of both is counted.

    Args:
        vocab_path: ``NAME.vocab.gguf``.
        prompter: Writes the training rows as they stand in prompts.
        train: The training rows.
        languages: Codes of wordfreq's lists whose words complete the sets of recipes.
        scheduler: Address of a Dask scheduler whose workers tokenise.
        n_processes: Processes that tokenise otherwise.
    """

    def __init__(
        self,
        vocab_path: str | os.PathLike[str],
        prompter: Prompter,
        train: Sequence[Row],
        *,
        languages: Sequence[str] = (),
        scheduler: str | None = None,
        n_processes: int | None = None,
    ) -> None:
        self._vocab_path = vocab_path
        self._prompter = prompter
        self._train = train
        self._languages = languages
        self._scheduler = scheduler
        self._n_processes = n_processes
        self._profiles: dict[tuple[bool, bool], Profile] = {}

    def of(self, variant: Variant) -> TokenSet | None:
        """Return the set of a variant; None where it has none, or the rows need no token.

        Raises:
            BadFileError: A file cannot be read.
            NoTokenLeftError: Nothing is left of a vocabulary that is cut for good.
            VocabTailorError: There are no training rows.
        """
        if variant.of == "none":
            return None
        if is_file(variant.of):
            return TokenSet.load(variant.of)
        n_rows, share = rows(variant.of), tolerance(variant.of)
        is_recipe = n_rows is None and share is None
        found = self._profile(whole=variant.way == "pruned", words=is_recipe)
        try:
            if share is not None:
                return found.at_tolerance(share)
            return found.with_rows(n_rows) if n_rows is not None else found.of_recipe(variant.of)
        except NoTokenLeftError:
            # prompts may bring all that their outputs need, or all but what the tolerance drops
            if variant.way == "pruned":
                raise
            return None

    def _profile(self, *, whole: bool, words: bool) -> Profile:
        key = (whole, words and bool(self._languages))
        if key in self._profiles:
            return self._profiles[key]
        if not self._train:
            raise VocabTailorError("token sets are profiled from training rows: give --train")
        prompter = self._prompter
        texts = (
            Example("", prompter.whole(row)) if whole else Example(*prompter.profiled(row))
            for row in self._train
        )
        with VocabStore(self._vocab_path) as store:
            counts = count(
                store,
                texts,
                input_aware=not whole,
                scheduler=self._scheduler,
                n_processes=self._n_processes,
            )
        self._profiles[key] = profile(
            self._vocab_path,
            task=Task(None, "text", "", input_aware=not whole, static=False),
            languages=self._languages if words else (),
            counts=counts,
        )
        return self._profiles[key]
