"""What results say: for each model and data set, the variants beside the full vocabulary."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.metrics.score import Answer, Difference, Score, difference
from vocabtailor_gguf.evaluation.metrics.scores import scores
from vocabtailor_gguf.evaluation.results import Read, RowResult, Run
from vocabtailor_gguf.evaluation.variants import FULL


@dataclasses.dataclass(frozen=True)
class Figure:
    """A metric of a variant.

    Attributes:
        name: Of the metric.
        value: 0 to 100.
        difference: Less that of the full vocabulary; None for the full vocabulary itself.
    """

    name: str
    value: float
    difference: Difference | None


@dataclasses.dataclass(frozen=True)
class VariantSummary:
    """A variant on the rows that it and the full vocabulary have answered.

    Attributes:
        variant: Its name.
        n: Rows.
        set_rows: Ids of its token set, None without a set.
        figures: The metrics, the main one first.
        identical: Share of answers whose tokens are all those of the full vocabulary's answer.
        agreement: Of the tokens of both answers, place by place, the share that is the same.
        outside: Share of the tokens of the full vocabulary's answers that were not active.
        head_rows: Mean rows of the active set at the end of an answer.
        tokens_per_second: After the first token of each answer, without prompts.
        memory: Mean bytes of embedding rows, head and logits.
    """

    variant: str
    n: int
    set_rows: int | None
    figures: tuple[Figure, ...]
    identical: float
    agreement: float
    outside: float
    head_rows: float
    tokens_per_second: float
    memory: float


@dataclasses.dataclass(frozen=True)
class GroupSummary:
    """The variants of one model on one data set.

    Attributes:
        model: Name of the core.
        data: Name of the data set.
        task: As it was asked for.
        style: Of the prompts.
        shots: Examples before each prompt.
        n_threads: Threads that were asked for, None for one per core.
        llama: Version of llama-cpp-python.
        variants: The full vocabulary first.
    """

    model: str
    data: str
    task: str
    style: str
    shots: int
    n_threads: int | None
    llama: str
    variants: tuple[VariantSummary, ...]


def groups_of_json(data: Any) -> list[GroupSummary]:
    """Return summaries from what ``vocabtailor eval --json`` prints.

    Raises:
        TypeError, KeyError: It is something else.
    """
    return [
        GroupSummary(**{**group, "variants": tuple(map(_variant_of_json, group["variants"]))})
        for group in data
    ]


def _variant_of_json(data: dict[str, Any]) -> VariantSummary:
    figures = []
    for figure in data["figures"]:
        away = figure["difference"]
        figures.append(
            Figure(figure["name"], figure["value"], None if away is None else Difference(**away))
        )
    return VariantSummary(**{**data, "figures": tuple(figures)})


def summarise(read: Read) -> list[GroupSummary]:
    """Return what results say.

    Raises:
        UnsupportedError: A package for a metric is not installed.
        VocabTailorError: Answers of the full vocabulary are missing.
    """
    groups: dict[str, list[Run]] = {}
    for run in read.runs.values():
        groups.setdefault(run.group, []).append(run)
    # of runs that have only begun nothing is known yet
    begun = [runs for runs in groups.values() if any(read.rows.get(run.key) for run in runs)]
    return [_group(read, runs) for runs in begun or groups.values()]


def _group(read: Read, runs: Sequence[Run]) -> GroupSummary:
    first = runs[0]
    full = next((read.of(run.key) for run in runs if run.variant == FULL), {})
    found = []
    for run in sorted(runs, key=lambda run: run.variant != FULL):
        rows = read.of(run.key)
        both = [key for key in full if key in rows]
        if both:
            found.append(_variant(run, [rows[k] for k in both], [full[k] for k in both]))
    if not found:
        raise VocabTailorError(
            f"{first.model}, {first.data}: no answers of the full vocabulary to compare with"
        )
    return GroupSummary(
        first.model,
        first.data.replace(".test.", ".").rsplit(".", 1)[0],
        first.task,
        first.style,
        first.shots,
        first.n_threads,
        first.llama,
        tuple(found),
    )


def _scores(run: Run, rows: Sequence[RowResult]) -> list[Score]:
    answers = [Answer(row.text, row.reference, row.passed) for row in rows]
    return scores(run.metric, run.options, answers)


def _variant(run: Run, rows: Sequence[RowResult], full: Sequence[RowResult]) -> VariantSummary:
    """Summarise a variant; both hold the same rows."""
    own, others = _scores(run, rows), _scores(run, full)
    figures = []
    for score, other in zip(own, others, strict=True):
        away = None if run.variant == FULL else difference(score, other)
        figures.append(Figure(score.name, score.value, away))
    pairs = list(zip(rows, full, strict=True))
    longer = sum(max(len(a.tokens), len(b.tokens)) for a, b in pairs)
    same = sum(s == t for a, b in pairs for s, t in zip(a.tokens, b.tokens, strict=False))
    known = [row for row in rows if row.n_outside is not None and row.n_full]
    seconds = sum(row.ms for row in rows) / 1e3
    return VariantSummary(
        variant=run.variant,
        n=len(rows),
        set_rows=run.set_rows,
        figures=tuple(figures),
        identical=statistics.fmean(a.tokens == b.tokens for a, b in pairs),
        agreement=same / longer if longer else 1.0,
        outside=_ratio(sum(row.n_outside or 0 for row in known), sum(row.n_full for row in known)),
        head_rows=_mean([row.head_rows for row in rows]),
        tokens_per_second=_ratio(sum(max(len(row.tokens) - 1, 0) for row in rows), seconds),
        memory=_mean([row.memory for row in rows]),
    )


def _mean(values: Sequence[int | None]) -> float:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else 0.0


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0
