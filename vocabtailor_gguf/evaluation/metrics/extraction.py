"""Extraction: exact match and F1 as SQuAD has them (Rajpurkar et al., 2016)."""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Sequence

from vocabtailor_gguf.evaluation.metrics.score import Answer, Score, mean_score

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation, articles and repeated spaces.

    Example:
        >>> normalised("The  U.S. Army!")
        'us army'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the words.

    Example:
        >>> f1("in the year 1066", "1066")
        0.5
    """
    found, wanted = normalised(answer).split(), normalised(reference).split()
    if not found or not wanted:
        return float(found == wanted)
    n = sum((collections.Counter(found) & collections.Counter(wanted)).values())
    return 2 * n / (len(found) + len(wanted))


def extraction_scores(answers: Sequence[Answer]) -> list[Score]:
    """Return exact match and F1."""
    return [
        mean_score("EM", [normalised(a.text) == normalised(a.reference) for a in answers]),
        mean_score("F1", [f1(a.text, a.reference) for a in answers]),
    ]
