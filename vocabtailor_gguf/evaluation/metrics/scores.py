"""The metric that a task asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vocabtailor_gguf.evaluation.metrics.code import code_scores
from vocabtailor_gguf.evaluation.metrics.extraction import extraction_scores
from vocabtailor_gguf.evaluation.metrics.maths import maths_scores
from vocabtailor_gguf.evaluation.metrics.score import Answer, Score
from vocabtailor_gguf.evaluation.metrics.summarisation import summarisation_scores
from vocabtailor_gguf.evaluation.metrics.translation import translation_scores


def scores(metric: str, options: Mapping[str, str], answers: Sequence[Answer]) -> list[Score]:
    """Return the scores of answers, the main one first.

    Args:
        metric: One of ``tasks.METRICS``.
        options: Of the task.
        answers: One at least.

    Raises:
        UnsupportedError: A package is not installed.
    """
    if metric == "translation":
        return translation_scores(answers, options.get("tokenize"))
    known = {
        "summarisation": summarisation_scores,
        "extraction": extraction_scores,
        "maths": maths_scores,
        "code": code_scores,
    }
    return known[metric](answers)
