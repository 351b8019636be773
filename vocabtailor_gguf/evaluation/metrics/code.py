"""Code: pass@1 (Chen et al., 2021), the share of answers whose tests passed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vocabtailor_gguf.evaluation.metrics.score import Answer, Score, mean_score

_FENCE = re.compile(r"```[A-Za-z0-9]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def code_of(text: str) -> str:
    r"""Return the code of an answer: what its first fence holds, where it has one.

    Example:
        >>> code_of("Like this:\n```python\nx = 1\n```\nDone.")
        'x = 1\n'
    """
    found = _FENCE.search(text)
    return found[1] if found else text


def code_scores(answers: Sequence[Answer]) -> list[Score]:
    """Return pass@1, of one answer each."""
    return [mean_score("pass@1", [bool(a.passed) for a in answers])]
