"""What all metrics are made of: statistics of rows that add up, and a figure of their sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer beside what was wanted.

    Attributes:
        text: The answer.
        reference: The text that was wanted.
        passed: Of a code task: whether the tests passed.
    """

    text: str
    reference: str
    passed: bool | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """A metric of some rows.

    Attributes:
        name: As tables call it.
        statistics: (n, k) float64, of each row; statistics of rows add up.
        figure: From a (k,) sum to the metric, 0 to 100.
    """

    name: str
    statistics: Floats
    figure: Callable[[Floats], float]

    @property
    def value(self) -> float:
        """The metric over all rows."""
        return self.figure(self.statistics.sum(axis=0))


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a metric lies from that of the same rows in another variant.

    Attributes:
        value: The difference.
        low: Begin of its interval.
        high: Its end.
    """

    value: float
    low: float
    high: float


def mean_score(name: str, values: Sequence[float]) -> Score:
    """Return the metric that is 100 times the mean of a figure of each row."""
    column = np.array(values, dtype=np.float64)
    both = np.stack([column, np.ones_like(column)], axis=1)
    return Score(name, both, lambda total: float(100 * total[0] / total[1]))


def difference(
    score: Score, other: Score, *, n_samples: int = 1000, share: float = 0.95, seed: int = 0
) -> Difference:
    """Return `score` less `other`, with a paired bootstrap interval (Koehn, 2004).

    Rows are drawn with replacement, the same ones for both; the interval holds the middle `share`
    of the differences.

    Args:
        score: Of n rows.
        other: Of the same rows.
        n_samples: How often rows are drawn.
        share: Of the differences.
        seed: Of the draws.
    """
    n = len(score.statistics)
    random = np.random.default_rng(seed)
    drawn = np.empty(n_samples)
    for i in range(n_samples):
        weights = np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64)
        drawn[i] = score.figure(weights @ score.statistics) - other.figure(
            weights @ other.statistics
        )
    low, high = np.quantile(drawn, [(1 - share) / 2, (1 + share) / 2])
    return Difference(score.value - other.value, float(low), float(high))
