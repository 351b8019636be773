"""Maths: the final answer, as in GSM8K (Cobbe et al., 2021)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from vocabtailor_gguf.evaluation.metrics.score import Answer, Score, mean_score

# a minus that stands right behind a number, a word or a bracket is between two things
_NUMBER = re.compile(r"(?:(?<![\w)\]%])[-\u2212])?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_MARK = "####"


def final_answer(text: str) -> Decimal | None:
    """Return the first number after "####", else the last number, None where there is none.

    Example:
        >>> final_answer("2 + 2 is $4.00.")
        Decimal('4.00')
        >>> final_answer("-3-4")
        Decimal('4')
        >>> final_answer("#### 1,200 eggs, not 7")
        Decimal('1200')
    """
    _, mark, rest = text.partition(_MARK)
    found = _NUMBER.findall(rest if mark else text)
    if not found:
        return None
    return Decimal(found[0 if mark else -1].replace(",", "").replace("\u2212", "-"))


def maths_scores(answers: Sequence[Answer]) -> list[Score]:
    """Return the share of answers whose number is that of the reference."""
    right = []
    for a in answers:
        found = final_answer(a.text)
        right.append(found is not None and found == final_answer(a.reference))
    return [mean_score("accuracy", right)]
