"""Evaluation: models on data sets, in each variant."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.generate import (
    Generated,
    Loaded,
    Loading,
    Question,
    answer_on_worker,
)
from vocabtailor_gguf.evaluation.metrics.code import code_of
from vocabtailor_gguf.evaluation.prompts import Prompt, Prompter, prune, style_of, unknown_token
from vocabtailor_gguf.evaluation.results import ResultsFile, RowResult, Run
from vocabtailor_gguf.evaluation.rows import digest, load_data, spread
from vocabtailor_gguf.evaluation.sandbox import run_tests
from vocabtailor_gguf.evaluation.sets import TaskSets
from vocabtailor_gguf.evaluation.tasks import EvalTask, Style
from vocabtailor_gguf.evaluation.variants import Variant
from vocabtailor_gguf.gguf.pair import read_core, sibling_store
from vocabtailor_gguf.profiling.workers import dask_executor
from vocabtailor_gguf.runtime.tokenizer import always_on, load_tokenizer
from vocabtailor_gguf.sets.token_set import TokenSet

_ROWS_A_JOB = 4  # sent to a worker at once

Progress = Callable[[str, int, int], None]  # what is computed, rows done, rows in all


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set and its task.

    Attributes:
        task: The task.
        data: File of the rows to test on.
        train: File of other rows, for examples and token sets; None for none.
    """

    task: EvalTask
    data: str
    train: str | None


@dataclasses.dataclass(frozen=True)
class Options:
    """How models are evaluated.

    Attributes:
        style: Of the prompts, or None for chat prompts where the model has a chat template.
        limit: The most rows of a set.
        n_ctx: Tokens of the context.
        n_threads: Threads, by default one per core.
        scheduler: Address of a Dask scheduler whose workers answer, and tokenise; they open core
            and store under the same path.
    """

    style: Style | None = None
    limit: int | None = None
    n_ctx: int = 4096
    n_threads: int | None = None
    scheduler: str | None = None


def evaluate(
    models: Sequence[tuple[str, str | None]],
    sets: Sequence[DataSet],
    variants: Sequence[Variant],
    results: ResultsFile,
    options: Options | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Compute what the results lack, and return the keys of all runs that were asked for.

    Args:
        models: Cores, each with its store or None for the one beside it.
        sets: Data sets.
        variants: Variants, the full vocabulary first.
        results: Where the answers go.
        options: How.
        progress: Called with what is computed and how far it is.

    Raises:
        BadFileError: A file or a record cannot be used.
        VocabTailorError: An argument is wrong, the results began with other threads, or a model
            failed.
    """
    how = options or Options()
    with contextlib.ExitStack() as stack:
        answer = stack.enter_context(_answering(how))
        todo = []
        for core, vocab in models:
            store = str(vocab or sibling_store(core))
            tokenizer = stack.enter_context(contextlib.closing(load_tokenizer(store)))
            # what is wrong with any of them is told before hours are spent on another
            todo += [_ModelOnData(core, store, tokenizer, one, how) for one in sets]
        for one in todo:
            one.check_threads(results)
        return [one.run(variant, results, answer, progress) for one in todo for variant in variants]


Answering = Callable[[Loading, Sequence[Question]], Iterator[Generated]]


@contextlib.contextmanager
def _answering(how: Options) -> Iterator[Answering]:
    """Give what answers questions: a model that is loaded here, or the workers of a cluster."""
    if how.scheduler is None:
        with contextlib.closing(Loaded()) as loaded:

            def here(loading: Loading, questions: Sequence[Question]) -> Iterator[Generated]:
                for question in questions:
                    yield from loaded.answer(loading, [question])

            yield here
        return
    with dask_executor(how.scheduler) as (executor, _):

        def there(loading: Loading, questions: Sequence[Question]) -> Iterator[Generated]:
            parts = [questions[i : i + _ROWS_A_JOB] for i in range(0, len(questions), _ROWS_A_JOB)]
            jobs = [executor.submit(answer_on_worker, loading, part) for part in parts]
            for job in concurrent.futures.as_completed(jobs):
                yield from job.result()

        yield there


class _ModelOnData:
    """One model on one data set.

    Args:
        core: ``NAME.core.gguf``.
        vocab: ``NAME.vocab.gguf``.
        tokenizer: Of the store.
        asked: Data and task.
        how: Options.
    """

    def __init__(self, core: str, vocab: str, tokenizer: Any, asked: DataSet, how: Options) -> None:
        self._core = os.path.abspath(core)
        self._vocab = os.path.abspath(vocab)
        self._tokenizer = tokenizer
        self._pair = str(read_core(core).get("vocabtailor.pair_id"))
        self._task = asked.task
        self._how = how
        self._style: Style = how.style or style_of(tokenizer)
        self._data = load_data(
            asked.data, asked.task, self._style, train=asked.train, limit=how.limit
        )
        shots = spread(self._data.train, asked.task.shots)
        prompter = Prompter(tokenizer, asked.task, self._style, shots, how.n_ctx)
        self._prompts = [prompter.prompt(row) for row in self._data.rows]
        self._sets = TaskSets(
            vocab,
            prompter,
            self._data.train,
            languages=asked.task.languages,
            scheduler=how.scheduler,
            n_processes=how.n_threads,
        )
        self._full: dict[str, tuple[int, ...]] = {}  # tokens of the full vocabulary by prompt
        self._n_shots = len(shots)
        self._group = digest(
            self._pair,
            self._data.sha256,
            dataclasses.asdict(asked.task.form(self._style)),
            [asked.task.metric, dict(asked.task.options), asked.task.max_tokens],
            [self._style, self._n_shots, how.n_ctx, llama_cpp.__version__],
        )

    def check_threads(self, results: ResultsFile) -> None:
        """Check that results began with as many threads, since their times go into one mean.

        Raises:
            VocabTailorError: They did not.
        """
        for run in results.read.runs.values():
            if run.group == self._group and run.n_threads != self._how.n_threads:
                began = "without -t" if run.n_threads is None else f"with -t {run.n_threads}"
                raise VocabTailorError(
                    f"{results.path}: {run.model}, {run.data}: began {began}, and times of other "
                    "threads do not go into the same results: go on so, or give another -o"
                )

    def run(
        self,
        variant: Variant,
        results: ResultsFile,
        answer: Answering,
        progress: Progress | None,
    ) -> str:
        """Compute the rows of a variant that are missing; return the key of its run."""
        chosen = self._sets.of(variant)
        if chosen is not None:
            with VocabStore(self._vocab) as store:
                chosen.check(store, variant.of)
        run = self._run_of(variant, chosen)
        results.add(run)
        seen = self._seen(variant, chosen)
        done = results.read.of(run.key)
        todo = {p.key: p for p in self._prompts if p.key not in done}
        questions = [self._question(key, seen[key]) for key in todo]
        told = f"{run.model}, {run.data}, {run.variant}"
        n_done = len(seen) - len(todo)
        for found in answer(self._loading(run.key, variant, chosen), questions) if todo else ():
            results.add(self._result(run, todo[found.key], found))
            n_done += 1
            if progress is not None:
                progress(told, n_done, len(seen))
        if variant.way == "full":
            self._full = {key: row.tokens for key, row in results.read.of(run.key).items()}
        return run.key

    def _question(self, key: str, prompt: Prompt) -> Question:
        return Question(
            key,
            prompt.tokens,
            prompt.n_shared,
            self._task.max_tokens,
            self._task.form(self._style).stop,
            self._full.get(key, ()),
        )

    def _run_of(self, variant: Variant, chosen: TokenSet | None) -> Run:
        ids = None if chosen is None else digest(chosen.ids.tolist())
        return Run(
            key=digest(self._group, variant.name, variant.way, ids),
            group=self._group,
            model=Path(self._core).name.removesuffix(".core.gguf"),
            pair=self._pair,
            data=self._data.name,
            task=self._task.name,
            metric=self._task.metric,
            options=dict(self._task.options),
            style=self._style,
            shots=self._n_shots,
            variant=variant.name,
            set_rows=None if chosen is None else len(chosen),
            n_threads=self._how.n_threads,
            llama=llama_cpp.__version__,
        )

    def _seen(self, variant: Variant, chosen: TokenSet | None) -> dict[str, Prompt]:
        """Return the prompts as a variant sees them, by the keys of the whole prompts."""
        if variant.way != "pruned" or chosen is None:
            return {prompt.key: prompt for prompt in self._prompts}
        kept = np.union1d(chosen.ids, always_on(self._tokenizer._model.vocab)).astype(np.int32)
        unknown = unknown_token(self._tokenizer)
        return {prompt.key: prune(prompt, kept, unknown) for prompt in self._prompts}

    def _loading(self, key: str, variant: Variant, chosen: TokenSet | None) -> Loading:
        return Loading(
            key=key,
            core=self._core,
            vocab=self._vocab,
            mode="tailored" if variant.way == "pruned" else variant.way,
            token_set=chosen,
            prompt_expansion=variant.way != "pruned",
            n_ctx=self._how.n_ctx,
            n_threads=self._how.n_threads,
        )

    def _result(self, run: Run, prompt: Prompt, found: Generated) -> RowResult:
        passed = ended = None
        if run.metric == "code":
            verdict = run_tests(code_of(found.text), prompt.row.tests)
            passed, ended = verdict.passed, verdict.ended
        return RowResult(
            run=run.key,
            key=prompt.key,
            row=prompt.row.number,
            reference=prompt.row.fields[self._task.output],
            n_prompt=len(prompt.tokens),
            n_shots=prompt.n_shots,
            tokens=found.tokens,
            text=found.text.strip() if run.metric != "code" else found.text,
            prompt_ms=found.prompt_ms,
            ms=found.ms,
            head_rows=found.head_rows,
            n_outside=found.n_outside,
            n_full=len(self._full.get(prompt.key, found.tokens)),
            memory=found.memory,
            passed=passed,
            ended=ended,
        )
