"""What a benchmark found: samples of each mode in each test, by model."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocabtailor_gguf.bench.machine import Machine
from vocabtailor_gguf.bench.steady import SteadyRow
from vocabtailor_gguf.bench.workloads import Workload


@dataclasses.dataclass(frozen=True)
class Row:
    """All samples of one mode in one test, each from a process of its own.

    Attributes:
        test: The test.
        mode: One of `MODES`: core is the core with no head at all; exact has the token set, as
            tailored has, exact-no-set has none, exact-active has it and drafts nothing from the
            text. Or stock with a head of another type, such as stock-q4_0.
        samples: What the child processes printed, round by round.
    """

    test: Workload
    mode: str
    samples: tuple[dict[str, Any], ...]

    @property
    def speeds(self) -> list[float]:
        """Tokens per second, of parts grow and swap rows, round by round."""
        return [s.get("n", self.test.n_units) * 1e9 / s["ns"] for s in self.samples]

    def ratio(self, other: Row) -> float:
        """Return the median over rounds of this row's speed over that of `other`."""
        pairs = zip(self.speeds, other.speeds, strict=True)
        return statistics.median(a / b for a, b in pairs)

    def median(self, what: str) -> float:
        """Return the median of a figure of the samples."""
        return float(statistics.median(s[what] for s in self.samples))

    @property
    def load_ms(self) -> dict[str, float]:
        """Median ms of each part of a load, the longest first; nothing of other tests, or stock."""
        names = self.last.get("load_ms", {})
        found = {n: statistics.median(s["load_ms"][n] for s in self.samples) for n in names}
        return dict(sorted(found.items(), key=lambda part: -part[1]))

    @property
    def last(self) -> dict[str, Any]:
        """The sample of the last round."""
        return self.samples[-1]

    @property
    def memory(self) -> dict[str, float] | None:
        """Median bytes by component, None where the system does not tell."""
        if any(s.get("maps") is None for s in self.samples):
            return None
        names = self.last["maps"]
        return {n: statistics.median(s["maps"][n] for s in self.samples) for n in names}

    @property
    def accepted(self) -> float | None:
        """Share of drafts that were the whole vocabulary's choice; None where none were made."""
        drafted = sum(s.get("drafted", 0) for s in self.samples)
        return 1 - sum(s["rejected"] for s in self.samples) / drafted if drafted else None

    @property
    def agreed(self) -> float | None:
        """Share of tokens taken ahead into a pass that were then chosen; None without any."""
        ahead = sum(s.get("ahead", 0) for s in self.samples)
        return sum(s["agreed"] for s in self.samples) / ahead if ahead else None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The result of one model.

    Attributes:
        core: ``NAME.core.gguf``.
        baseline: The unsplit model.
        n_threads: Threads.
        head_rows: Most rows of the active set in tailored mode, of the text tests.
        rows: From fresh processes.
        steady: From one process in which the modes took turns.
    """

    core: Path
    baseline: Path
    n_threads: int
    head_rows: int
    rows: tuple[Row, ...]
    steady: tuple[SteadyRow, ...] = ()

    def row(self, test: Workload, mode: str) -> Row | None:
        """Return the row of a test and a mode."""
        return next((r for r in self.rows if r.test == test and r.mode == mode), None)

    def of(self, *parts: str) -> list[Row]:
        """Return the rows of parts."""
        return [r for r in self.rows if r.test.part in parts]

    def x_stock(self, row: Row) -> float | None:
        """Return a row's speed over stock's, None where stock was not measured."""
        stock = self.row(row.test.reference, "stock")
        return None if stock is None else row.ratio(stock)

    def as_stock(self, row: Row) -> float | None:
        """Return the share of a greedy text, from its begin, that is stock's.

        None where there is no text, or stock was not measured.
        """
        stock = self.row(row.test.reference, "stock")
        if stock is None or "tokens" not in stock.last or "tokens" not in row.last:
            return None
        return _same_begin(row.last["tokens"], stock.last["tokens"])

    @property
    def noise(self) -> float | None:
        """The machine's own noise: how far repeated runs of stock lie apart.

        The middle half of their speeds as a share of the median, in the test where that is most;
        starts are left out, for disks are another noise.
        Without fresh processes it is that of the steady way, whose prompts differ besides. None
        where stock did not run twice.
        """
        of_tokens = self.of("text", "prompt", "json", "depth")
        fresh = [spread(r.speeds) for r in of_tokens if r.mode == "stock" and len(r.samples) > 1]
        steady = [r.noise for r in self.steady if r.mode == "stock" and r.prompts > 1]
        return max(fresh or steady, default=None)


@dataclasses.dataclass(frozen=True)
class Report:
    """All that one call measured.

    Attributes:
        machine: The header.
        time: When it began, in UTC as of ISO 8601.
        models: A result for each pair of a core and its unsplit model.
    """

    machine: Machine
    time: str
    models: tuple[Benchmark, ...]


def spread(speeds: Sequence[float]) -> float:
    """Return the middle half of two speeds or more as a share of their median."""
    low, middle, high = statistics.quantiles(speeds, n=4, method="inclusive")
    return (high - low) / middle


def _same_begin(ours: Sequence[int], theirs: Sequence[int]) -> float:
    n = min(len(ours), len(theirs))
    same = next((i for i in range(n) if ours[i] != theirs[i]), n)
    return same / max(len(theirs), 1)
