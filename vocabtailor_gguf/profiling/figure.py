"""The curves of a report: coverage and cost by size of the set."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from vocabtailor_gguf.errors import UnsupportedError
from vocabtailor_gguf.profiling.coverage import Coverage
from vocabtailor_gguf.profiling.report import Report

_TICKS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)


def figure(report: Report) -> str:
    """Return the curves as an SVG element: coverage, and cost of the head, by size of the set.

    Raises:
        UnsupportedError: ``matplotlib`` is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise UnsupportedError(
            "a report needs the package matplotlib: pip install 'vocabtailor_gguf[report]'"
        ) from e
    drawing = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = drawing.subplots(1, 2, width_ratios=[3, 2])
    _draw_coverage(left, report)
    _draw_cost(right, report)
    out = io.StringIO()
    drawing.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


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
    axes.set(xscale="log", yscale="log", ylim=(1.0, floor), xlim=(rows[0], rows[-1]))
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


def _draw_cost(axes: Any, report: Report) -> None:
    rows = [s.rows for s in report.sizes]
    (time,) = axes.plot(rows, [s.head_ms for s in report.sizes], "o-", color="#1f4e9c")
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("rows of the set")
    axes.set_ylabel("ms a token")
    other = axes.twinx()
    (memory,) = other.plot(rows, [s.head_mb for s in report.sizes], "s--", color="#b8470b")
    other.set(yscale="log")
    other.set_ylabel("MB")
    axes.set_title("Cost of the LM head", loc="left")
    axes.grid(alpha=0.3)
    axes.legend([time, memory], ["time", "memory"], fontsize=8, loc="upper left")
