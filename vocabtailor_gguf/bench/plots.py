"""The pictures of a result, each one an SVG element."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vocabtailor_gguf.bench.results import Benchmark, Row
from vocabtailor_gguf.bench.smaps import COMPONENTS
from vocabtailor_gguf.bench.tables import OF_COMPONENTS, shown_memory
from vocabtailor_gguf.svg import check_can_draw, element, new_drawing

_COLOURS = {
    "stock": "#5c6670", "core": "#b9a23b", "full": "#8e6bb0", "tailored": "#2f8f5b",
    "exact": "#1f4e9c", "exact-no-set": "#6d9bd8", "exact-active": "#37a3b5",
    "stock-q4_0": "#b8470b", "stock-q4_K": "#e08a4f", "stock-q5_0": "#e08a4f",
}  # fmt: skip
_OF_PARTS = {
    "core": "#1f4e9c", "store": "#6d9bd8", "stock": "#5c6670", "anonymous": "#d97a3f",
    "libraries": "#b9c2cb", "other": "#dfe4e8",
}  # fmt: skip
_SIZE = (6.4, 4.2)  # inches
_BAR = 0.42  # inches


def plots_of(result: Benchmark) -> Iterator[tuple[str, str]]:
    """Yield title and SVG element of each picture for which there are figures.

    Raises:
        UnsupportedError: ``matplotlib`` is not installed.
    """
    check_can_draw("a page")
    drawn = [
        ("Speed against the size of the set", _size_plot(result)),
        ("Memory by component", _component_plot(result)),
        ("Memory against speed", _memory_plot(result)),
        ("Accepted drafts", _draft_plot(result)),
        ("Speed against the length of the text", _depth_plot(result)),
        ("Start", _start_plot(result)),
    ]
    yield from ((title, svg) for title, svg in drawn if svg is not None)


def _svg(draw: Callable[[Any], None], size: tuple[float, float] = _SIZE) -> str:
    drawing = new_drawing(size)
    axes = drawing.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    return element(drawing)


def _size_plot(result: Benchmark) -> str | None:
    rows = sorted(result.of("size"), key=lambda row: row.test.n_rows)
    if not rows:
        return None

    def draw(axes: Any) -> None:
        sizes = [row.last["head_rows"] for row in rows]
        _line(axes, sizes, rows, "tailored")
        stock = result.row(rows[0].test.reference, "stock")
        if stock is not None:
            speed = statistics.median(stock.speeds)
            axes.axhline(speed, color=_COLOURS["stock"], linestyle="--", label="stock")
        axes.set_xscale("log", base=2)
        marks = _thinned(sizes)
        axes.set_xticks(marks, [_thousands(n) for n in marks])
        axes.set_xticks([], minor=True)
        other = axes.twinx()
        other.spines["top"].set_visible(False)
        heads = [row.last["report"]["head"] / 1e6 for row in rows]
        other.plot(sizes, heads, "s:", color="#d97a3f", markersize=4, label="head, MB")
        other.set_ylabel("memory of the head, MB")
        other.set_ylim(bottom=0)
        axes.set_xlabel("rows of the head")
        _finish(axes, "tokens/s")
        lines = [*axes.get_lines(), *other.get_lines()]
        named = [line for line in lines if not line.get_label().startswith("_")]
        _legend_above(axes, named)

    return _svg(draw)


def _component_plot(result: Benchmark) -> str | None:
    shown = shown_memory(result)
    if not shown:
        return None

    def draw(axes: Any) -> None:
        names = [row.mode for row, _ in shown]
        left = [0.0] * len(shown)
        for part in COMPONENTS:
            sizes = [memory[part] / 1e6 for _, memory in shown]
            if max(sizes) < 0.005 * max(sum(memory.values()) for _, memory in shown) / 1e6:
                continue  # would not be seen
            axes.barh(names, sizes, left=left, color=_OF_PARTS[part], label=OF_COMPONENTS[part])
            left = [a + b for a, b in zip(left, sizes, strict=True)]
        _finish_bars(axes, left, "resident MB")

    return _svg(draw, (_SIZE[0], 1.6 + _BAR * len(shown)))


def _memory_plot(result: Benchmark) -> str | None:
    rows = [r for r in result.of("text") if r.test.sampler == "greedy" and r.median("peak") > 0]
    if not rows:
        return None

    def draw(axes: Any) -> None:
        for row in rows:
            speed = statistics.median(row.speeds)
            colour = _colour(row.mode)
            axes.plot(row.median("peak") / 1e6, speed, "o", color=colour, label=row.mode, ms=9)
        axes.set_xlim(left=0)
        axes.set_xlabel("peak resident MB")
        axes.margins(x=0.1, y=0.1)
        _finish(axes, "tokens/s")
        _legend_above(axes)

    return _svg(draw)


def _draft_plot(result: Benchmark) -> str | None:
    bars = [
        (f"{row.test.name}, {row.mode}", row.mode, row.accepted, row.agreed)
        for row in result.rows
        if row.accepted is not None and row.test.part in ("text", "json", "depth")
    ]
    bars += [
        (
            f"{row.sampler} in turn, {row.mode}",
            row.mode,
            1 - row.rejected / row.drafted,
            row.agreed / row.ahead if row.ahead else None,
        )
        for row in result.steady
        if row.drafted
    ]
    if not bars:
        return None

    def draw(axes: Any) -> None:
        places = range(len(bars))
        shares = [100 * (accepted or 0.0) for _, _, accepted, _ in bars]
        colours = [_colour(mode) for _, mode, _, _ in bars]
        axes.barh(places, shares, height=0.6, color=colours)
        ahead = [(i, 100 * bar[3]) for i, bar in enumerate(bars) if bar[3] is not None]
        if ahead:
            at, agreed = zip(*ahead, strict=True)
            axes.plot(agreed, at, "D", color="#d97a3f", ms=6, label="agreed, of those taken ahead")
        for i, share in zip(places, shares, strict=True):
            axes.text(104, i, f"{share:.0f}%", va="center", fontsize=9)
        axes.set_yticks(places, [bar[0] for bar in bars])
        axes.set_xlim(0, 115)
        axes.set_xticks(range(0, 101, 20))
        axes.invert_yaxis()
        axes.set_xlabel("accepted, % of drafts")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        if ahead:
            _legend_above(axes)

    return _svg(draw, (_SIZE[0], 1.4 + 0.75 * _BAR * len(bars)))


def _depth_plot(result: Benchmark) -> str | None:
    rows = result.of("depth")
    modes = list(dict.fromkeys(row.mode for row in rows))
    if len({row.test.n_depth for row in rows}) < 2:
        return None

    def draw(axes: Any) -> None:
        for mode in modes:
            mine = sorted((r for r in rows if r.mode == mode), key=lambda r: r.test.n_depth)
            _line(axes, [r.test.n_depth for r in mine], mine, mode)
        axes.set_xticks(sorted({row.test.n_depth for row in rows}))
        axes.set_xlabel("tokens before")
        _finish(axes, "tokens/s")
        _legend_above(axes)

    return _svg(draw)


def _start_plot(result: Benchmark) -> str | None:
    rows = result.of("start")
    if not rows:
        return None

    def draw(axes: Any) -> None:
        names = [f"{row.test.name.removeprefix('start ')}, {row.mode}" for row in rows]
        load = [row.median("load_ns") / 1e6 for row in rows]
        first = [row.median("ns") / 1e6 for row in rows]
        after = [b - a for a, b in zip(load, first, strict=True)]
        axes.barh(names, load, color="#1f4e9c", label="load")
        axes.barh(names, after, left=load, color="#6d9bd8", label="prompt and first token")
        _finish_bars(axes, first, "ms")

    return _svg(draw, (_SIZE[0], 1.6 + 0.75 * _BAR * len(rows)))


def _finish_bars(axes: Any, totals: Sequence[float], label: str) -> None:
    """Write the total beside each bar, of which the first is the uppermost."""
    for i, total in enumerate(totals):
        axes.text(total, i, f" {total:.0f}", va="center", fontsize=9)
    axes.set_xlim(0, 1.12 * max(totals))
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    _legend_above(axes)


def _line(axes: Any, x: Sequence[int], rows: Sequence[Row], mode: str) -> None:
    """Draw medians, and behind them what lies between the slowest and the fastest round."""
    colour = _colour(mode)
    axes.plot(x, [statistics.median(r.speeds) for r in rows], "o-", color=colour, label=mode)
    low, high = ([of(r.speeds) for r in rows] for of in (min, max))
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _colour(mode: str) -> str:
    return _COLOURS.get(mode, "#222222")


def _finish(axes: Any, label: str) -> None:
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)


def _legend_above(axes: Any, handles: Sequence[Any] | None = None) -> None:
    """Put the legend above the axes, where it covers nothing."""
    if handles is None:
        handles, _ = axes.get_legend_handles_labels()
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=min(len(handles), 4),
        fontsize=8.5,
        frameon=False,
        borderaxespad=0,
        columnspacing=1.2,
        handletextpad=0.5,
    )


def _thinned(sizes: Sequence[int]) -> list[int]:
    """Return places for ticks that do not touch on a logarithmic axis."""
    kept: list[int] = []
    for n in sizes:
        if not kept or n >= 1.6 * kept[-1]:
            kept.append(n)
    return kept


def _thousands(n: int) -> str:
    return f"{n / 1000:.0f}k" if n >= 10_000 else f"{n / 1000:.1f}k" if n >= 1000 else str(n)
