"""What a set costs in the LM head: memory, and time where the machine lets it be told."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.store import VocabStore

Verdict = Literal["clear", "partly", "noise"]

_N_TURNS = 7
_N_IN_TURN = 3  # products of a turn that are timed
_CACHE_BYTES = 64 << 20  # more than the caches of a core hold
_OTHER = 2.0  # sizes that differ by this factor should differ in time, too


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one size.

    Attributes:
        rows: Rows of the head, always-on ones included.
        mb: Memory of the head's rows, MB (10**6 bytes).
        ms: Median time of the head for one token with cold caches, milliseconds.
        ms_low: Lower quartile of these times.
        ms_high: Upper quartile of them.
    """

    rows: int
    mb: float
    ms: float
    ms_low: float
    ms_high: float


def cost_of(rows: int, mb: float, times: Sequence[float]) -> Cost:
    """Return the cost from measured times (ms), one or more."""
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    return Cost(rows, mb, float(middle), float(low), float(high))


def measure_costs(
    store: VocabStore, sets: Sequence[npt.NDArray[np.int32]], n_threads: int
) -> list[Cost]:
    """Measure the head over each of some sets of ids, which take turns, for one token.

    A set is read anew for each of its turns, so that one is in memory at a time.
    """
    hidden = np.random.default_rng(0).standard_normal((1, store.n_embd), dtype=np.float32)
    others = np.ones(_CACHE_BYTES // 8)
    times: list[list[float]] = [[] for _ in sets]
    sizes = [0] * len(sets)
    for which in turns(len(sets), _N_TURNS):
        head = ActiveHead(store)
        try:
            head.set_static(sets[which])
            times[which] += _timed(head, hidden, others, n_threads)
            sizes[which] = head.n_bytes
        finally:
            head.close()
    return [
        cost_of(ids.size, n_bytes / 1e6, measured)
        for ids, n_bytes, measured in zip(sets, sizes, times, strict=True)
    ]


def turns(n: int, n_turns: int) -> Iterator[int]:
    """Yield who is next: all of `n`, `n_turns` times, each time beginning with another one."""
    for turn in range(n_turns):
        for i in range(n):
            yield (turn + i) % n


def _timed(
    head: ActiveHead,
    hidden: npt.NDArray[np.float32],
    others: npt.NDArray[np.float64],
    n_threads: int,
) -> Iterator[float]:
    """Yield times in ms; between two products `others` is read, which fills the caches."""
    head.compute(hidden, n_threads=n_threads)  # the first one also makes its graph
    for _ in range(_N_IN_TURN):
        others.sum()
        began = time.perf_counter()
        head.compute(hidden, n_threads=n_threads)
        yield 1e3 * (time.perf_counter() - began)


def overlapping(costs: Sequence[Cost]) -> list[tuple[int, int]]:
    """Return pairs of sizes whose times cannot be told apart, as places in `costs`.

    Each size is compared with the next one of twice as many rows; what is taken for equal is that
    the middle halves of their times overlap.

    Args:
        costs: By rows.
    """
    pairs = _comparable(costs)
    return [(i, j) for i, j in pairs if costs[j].ms_low <= costs[i].ms_high]


def verdict(costs: Sequence[Cost]) -> Verdict:
    """Tell whether times grow with the sizes as far as their spreads allow to see.

    More rows are more bytes to read, so a set of half the rows that is slower beyond the spreads
    shows that the spreads do not hold all the noise.

    Args:
        costs: By rows.

    Returns:
        ``"noise"`` where that is so, or where the smallest and the largest size or most others
        overlap; ``"partly"`` where some overlap; else ``"clear"``.
    """
    pairs, equal = _comparable(costs), overlapping(costs)
    falling = any(
        a.ms_low > b.ms_high
        for a, b in itertools.combinations(costs, 2)
        if b.rows >= _OTHER * a.rows
    )
    ends = bool(pairs) and costs[-1].ms_low <= costs[0].ms_high
    if falling or ends or 2 * len(equal) > len(pairs):
        return "noise"
    return "partly" if equal else "clear"


def _comparable(costs: Sequence[Cost]) -> list[tuple[int, int]]:
    pairs = []
    for i, cost in enumerate(costs):
        larger = (j for j in range(i + 1, len(costs)) if costs[j].rows >= _OTHER * cost.rows)
        pairs += [(i, j) for j in itertools.islice(larger, 1)]
    return pairs
