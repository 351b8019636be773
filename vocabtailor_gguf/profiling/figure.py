"""The curves of a report: coverage and cost by size of the set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vocabtailor_gguf.profiling.cost import verdict
from vocabtailor_gguf.profiling.coverage import Coverage
from vocabtailor_gguf.profiling.report import Report
from vocabtailor_gguf.svg import check_can_draw, element, new_drawing

_TICKS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
_MOST_TICKS = {"x": 4, "y": 9}
_MARGIN = 1.15  # between the outermost value and the frame


def figure(report: Report) -> str:
    """Return the curves as an SVG element: coverage, and cost of the head, by size of the set.

    Raises:
        UnsupportedError: ``matplotlib`` is not installed.
    """
    check_can_draw("a report")
    drawing = new_drawing((11, 4.6))
    left, right = drawing.subplots(1, 2, width_ratios=[3, 2])
    _draw_coverage(left, report)
    _draw_cost(right, report)
    return element(drawing)


def _draw_coverage(axes: Any, report: Report) -> None:
    curves: list[tuple[str, Coverage | None, Any, str, str]] = [
        ("held-out, set alone", report.held_out, "set", "#8aa9d6", ":"),
        ("held-out, with prompt", report.held_out, "prompt", "#5b86c4", "--"),
        ("held-out, with forms too", report.held_out, "expanded", "#1f4e9c", "-"),
        ("own outputs, set alone", report.own, "set", "#e3a27c", ":"),
        ("own outputs, with prompt", report.own, "prompt", "#d97a3f", "--"),
        ("own outputs, with forms too", report.own, "expanded", "#b8470b", "-"),
    ]
    rows = np.unique(np.geomspace(100, report.n_vocab, 300).astype(int))
    floor = _TICKS[-1]
    for label, coverage, which, colour, style in curves:
        if coverage is not None:
            missing = [max(1 - coverage.share(int(r), which), floor) for r in rows]
            axes.plot(rows, missing, style, color=colour, label=label)
    axes.set(yscale="log", ylim=(1.0, floor))
    _plain_log(axes, "x", [rows[0], rows[-1]])
    axes.set_yticks(_TICKS, [f"{100 * (1 - t):g}%" for t in _TICKS])
    axes.set_yticks([], minor=True)
    axes.set_xlabel("rows of the set")
    axes.set_ylabel("output tokens that are active")
    axes.set_title("Coverage", loc="left")
    axes.grid(alpha=0.3)
    for size in report.sizes:
        if size.name.startswith(("recipe", "tolerance 0.01")) and size.rows >= rows[0]:
            axes.axvline(size.rows, color="#888888", linewidth=0.8)
            axes.text(
                size.rows,
                0.98,
                size.name,
                transform=axes.get_xaxis_transform(),  # the height is a share of the axes'
                rotation=90,
                fontsize=7,
                va="top",
                ha="right",
            )
    if report.held_out is not None or report.own is not None:
        axes.legend(fontsize=8, loc="lower right")
    else:
        axes.text(0.5, 0.5, "no held-out texts", transform=axes.transAxes, ha="center")


def _draw_cost(axes: Any, report: Report) -> None:
    rows = [s.rows for s in report.sizes]
    costs = [s.cost for s in report.sizes]
    lines = []
    memory = axes
    if verdict(costs) == "noise":
        axes.text(
            0.5, 0.03, "times are left out: the machine was too busy",
            transform=axes.transAxes, fontsize=8, ha="center",
        )  # fmt: skip
    else:
        around = [[c.ms - c.ms_low for c in costs], [c.ms_high - c.ms for c in costs]]
        lines.append(
            axes.errorbar(
                rows, [c.ms for c in costs], yerr=around, fmt="o-", color="#1f4e9c", capsize=3,
                markersize=4, label="time: median, middle half",
            )
        )  # fmt: skip
        _plain_log(axes, "y", [c.ms_low for c in costs] + [c.ms_high for c in costs])
        axes.set_ylabel("ms a token")
        memory = axes.twinx()
    lines += memory.plot(
        rows, [c.mb for c in costs], "s--", color="#b8470b", markersize=4, label="memory"
    )
    _plain_log(memory, "y", [c.mb for c in costs])
    memory.set_ylabel("MB")
    _plain_log(axes, "x", rows)
    axes.set_xlabel("rows of the set")
    axes.set_title("Cost of the LM head", loc="left")
    axes.grid(alpha=0.3)
    axes.legend(handles=lines, fontsize=8, loc="upper left")


def _plain_log(axes: Any, which: str, values: Sequence[float]) -> None:
    """Make an axis logarithmic, with ticks in plain figures, for values above 0."""
    low, high = min(values), max(values)
    at = plain_ticks(low, high, most=_MOST_TICKS[which])
    around = (min(low, at[0]) / _MARGIN, max(high, at[-1]) * _MARGIN)
    axes.set(**{f"{which}scale": "log", f"{which}lim": around})
    set_ticks = getattr(axes, f"set_{which}ticks")
    set_ticks(at, [f"{t:,.10g}" for t in at])
    set_ticks([], minor=True)


def plain_ticks(low: float, high: float, *, most: int) -> list[float]:
    """Return ticks of a logarithmic axis from `low` to `high`, both above 0.

    They are 1, 2, 5, 10 and so on, or powers of ten where these are more than `most`. Where fewer
    than two lie within, there is one at or below `low` and one above it, at or above `high`.
    """
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    every = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    within = [tick for tick in every if low <= tick <= high]
    if len(within) > most:
        powers = [tick for tick in within if tick in every[::3]]
        return powers if len(powers) > 1 else within[::2]
    if len(within) > 1:
        return within
    below = max(tick for tick in every if tick <= low)
    return [below, min(tick for tick in every if tick >= high and tick > below)]
