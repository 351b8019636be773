"""Summarisation: ROUGE, by rouge-score."""

from __future__ import annotations

from collections.abc import Sequence

from vocabtailor_gguf.errors import UnsupportedError
from vocabtailor_gguf.evaluation.metrics.score import Answer, Score, mean_score

_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def summarisation_scores(answers: Sequence[Answer]) -> list[Score]:
    """Return the F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, of stemmed words.

    Raises:
        UnsupportedError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as e:
        raise UnsupportedError(
            "ROUGE needs the package rouge-score: pip install 'vocabtailor_gguf[eval]'"
        ) from e
    scorer = RougeScorer(list(_NAMES), use_stemmer=True)
    found = [scorer.score(a.reference, a.text) for a in answers]
    return [
        mean_score(name, [float(scores[key].fmeasure) for scores in found])
        for key, name in _NAMES.items()
    ]
