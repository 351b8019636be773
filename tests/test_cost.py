"""What sets cost: measured numbers, what they allow to be said, and how it is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabtailor_gguf import VocabStore
from vocabtailor_gguf.profiling.cost import (
    Cost,
    cost_of,
    measure_costs,
    overlapping,
    turns,
    verdict,
)
from vocabtailor_gguf.profiling.figure import figure, plain_ticks
from vocabtailor_gguf.profiling.render import about_times, advice, markdown
from vocabtailor_gguf.profiling.report import Report, Size

# (rows, ms, lower, upper quartile) on a quiet machine, on a busy one, and on one that tells nothing
QUIET = [(5000, 0.3, 0.3, 0.4), (5500, 0.3, 0.3, 0.4), (30000, 1.3, 1.1, 1.8), (260000, 7, 6, 10)]
BUSY = [(5000, 1.2, 0.6, 1.8), (12000, 1.9, 1.0, 2.3), (60000, 2.4, 2.4, 3.5), (260000, 8, 7, 9)]
FALLING = [(4778, 13.8, 13.0, 14.1), (30000, 14, 13, 15), (130608, 9.4, 9.0, 9.9)]
ALIKE = [(5000, 5, 2, 9), (30000, 6, 3, 10), (130000, 7, 4, 11)]


def costs(measured: Sequence[tuple[float, ...]]) -> list[Cost]:
    return [Cost(int(rows), rows / 1000, *times) for rows, *times in measured]


def report(measured: Sequence[tuple[float, ...]]) -> Report:
    """A report of sizes A, B and so on, the last of which covers everything."""
    sizes = [
        Size(
            chr(65 + i), c.rows, c.rows / 262144, {"expanded": i / (len(measured) - 1)}, {}, None, c
        )
        for i, c in enumerate(costs(measured))
    ]
    return Report("m.gguf", (), (), 262144, 0, {}, tuple(sizes), None, None, (), "", 2)


def test_medians_and_quartiles() -> None:
    assert cost_of(7, 1.5, [5, 1, 4, 2, 300]) == Cost(7, 1.5, 4, 2, 5)
    assert cost_of(7, 1.5, [2.0]) == Cost(7, 1.5, 2, 2, 2)


def test_sizes_take_turns() -> None:
    order = list(turns(3, 2))
    assert order == [0, 1, 2, 1, 2, 0]


def test_measuring(tiny_split: Callable[[str], Any]) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        sets = [np.arange(n, dtype=np.int32) for n in (8, store.n_vocab)]
        small, all_ = measure_costs(store, sets, 1)
    assert (small.rows, all_.rows) == (8, sets[1].size)
    assert 0 < small.mb < all_.mb
    for cost in (small, all_):
        assert 0 < cost.ms_low <= cost.ms <= cost.ms_high


@pytest.mark.parametrize(
    ("measured", "expected", "equal"),
    [
        (QUIET, "clear", []),
        (BUSY, "partly", [(0, 1)]),
        (FALLING, "noise", [(0, 1), (1, 2)]),
        (ALIKE, "noise", [(0, 1), (1, 2)]),
        # each is slower than the one before, but by less than the spread
        ([(5000, 5, 1, 9), (20000, 9, 8, 11), (80000, 10, 9, 12)], "noise", [(0, 1), (1, 2)]),
        # sizes that are nearly the same say nothing
        ([(5000, 1, 1, 1), (5500, 0.8, 0.7, 0.9), (99000, 3, 2, 4)], "clear", []),
        ([(5000, 1, 0.5, 1.5)], "clear", []),
        # nothing of twice the size to compare with
        ([(5000, 1, 0.5, 1.5), (6000, 1, 0.5, 1.5)], "clear", []),
        ([], "clear", []),
    ],
)
def test_what_times_allow_to_be_said(
    measured: Any, expected: str, equal: list[tuple[int, int]]
) -> None:
    assert verdict(costs(measured)) == expected
    assert overlapping(costs(measured)) == equal


def test_reports_say_what_times_are_worth() -> None:
    clear, busy, noise = report(QUIET), report(BUSY), report(ALIKE)
    assert "busy" not in about_times(clear) and "overlap" not in about_times(clear)
    assert "times of A and B overlap" in about_times(busy)
    assert "too busy to tell" in about_times(noise)
    clear, noise = (
        Report(**{**vars(r), "held_out": object()})  # something was held out
        for r in (clear, noise)
    )
    assert advice(clear)[0].endswith("MB, 7.00 ms a token.")
    assert advice(noise)[0].endswith("130.0 MB.")


def test_tables_show_the_spread() -> None:
    assert "| 7.00 (6.00 to 10.00) |" in markdown(report(QUIET), "r.svg")


def texts(svg: str) -> list[str]:
    """What is written in a figure, which matplotlib keeps in comments beside its outlines."""
    return [t.strip() for t in re.findall(r"<!-- (.*?) -->", svg)]


@pytest.mark.parametrize("measured", [QUIET, BUSY, ALIKE])
def test_axes_have_plain_figures(measured: Any) -> None:
    pytest.importorskip("matplotlib")
    written = texts(figure(report(measured)))
    assert {"10,000", "100,000", "no held-out texts"} <= set(written)
    assert not [t for t in written if "mathdefault" in t]
    assert ("ms a token" in written) == (measured is not ALIKE)
    assert ("times are left out: the machine was too busy" in written) == (measured is ALIKE)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (13, 18, [10, 20]),
        (12, 30, [10, 50]),
        (20, 20, [20, 50]),
        (9, 60, [10, 20, 50]),
        (0.04, 2.2, [0.05, 0.1, 0.2, 0.5, 1, 2]),
        (100, 262144, [100, 1000, 10000, 100000]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert plain_ticks(low, high, most=6) == expected


@given(st.floats(1e-6, 1e9), st.floats(1, 1e6), st.integers(3, 9))
def test_there_are_ticks_for_any_range(low: float, factor: float, most: int) -> None:
    ticks = plain_ticks(low, low * factor, most=most)
    assert len(ticks) >= 2
    assert ticks == sorted(set(ticks))
