"""Jobs for the children of a benchmark: what each is told, and what it answers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from vocabtailor_gguf.bench import pages
from vocabtailor_gguf.bench.workloads import Workload
from vocabtailor_gguf.child import run_child
from vocabtailor_gguf.errors import VocabTailorError

_CHILD = "vocabtailor_gguf.bench.child"  # the module that runs in a process of its own


@dataclasses.dataclass(frozen=True)
class Jobs:
    """What all jobs of a model have in common.

    Attributes:
        folder: For files that children read.
        core: Path of the core.
        stock: Paths of unsplit models by mode.
        common: vocab, token_set, n_threads and drafts.
        tokens: Of the help topics, as many as the longest prompt wants.
        text_tokens: Prompt of the text tests.
        sets: Paths of token sets by their size.
    """

    folder: Path
    core: str
    stock: dict[str, str]
    common: dict[str, Any]
    tokens: list[int]
    text_tokens: list[int]
    sets: dict[int, Path]

    def measure(
        self, test: Workload, mode: str, *, wanted: list[int] | None = None
    ) -> dict[str, Any]:
        """Measure once, in a process of its own.

        Args:
            test: The test.
            mode: The mode.
            wanted: Tokens of a text, of which the child tells how many it would choose.

        Raises:
            VocabTailorError: The measurement failed; the text carries its log.
        """
        job = {
            **self.common,
            **test.options(),
            "mode": mode,
            "model": self.stock.get(mode, self.core),
            "tokens": self.tokens[: test.n_prompt],
            "text_tokens": self.text_tokens,
            "wanted": wanted,
        }
        if test.part == "depth":
            job["text_tokens"] = self.tokens[: max(test.n_depth, 1)]
        if test.part == "size":
            job["token_set"] = str(self.sets[test.n_rows])
        if test.part == "start":
            files = self._files(mode)
            pages.drop(files) if test.is_cold else pages.fill(files)
        path = self.folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        ended = run_child(_CHILD, path)
        if ended.result is None:
            raise VocabTailorError(
                f'{job["model"]}: bench, {mode}: {ended.sentence}; "vocabtailor doctor" tells more'
            )
        return ended.result

    def _files(self, mode: str) -> list[str]:
        """Return the files of models that a mode reads."""
        if mode in self.stock:
            return [self.stock[mode]]
        return [self.core, self.common["vocab"]]
