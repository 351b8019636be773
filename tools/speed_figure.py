"""The figure of README's first screen: speeds of the modes against stock, as an SVG.

``doc_tables.py`` writes it, from the same results as the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from vocabtailor_gguf.bench.steady import SteadyRow

# what is shown, in this order; the others are for those who want to know why
MODES = {
    "exact-no-set": "exact, no set",
    "exact": "exact, token set",
    "tailored": "tailored, token set",
}
SAMPLERS = {"greedy": "greedy", "temp0.8": "temperature 0.8"}

_WIDTH, _LEFT, _UNIT = 760, 150, 170  # pixels; of a factor of 1
_TOP, _PITCH, _BAR, _HEADING, _FOOT = 40, 25, 19, 29, 34
_COLOURS = {True: "#17693b", False: "#8a5a00"}  # bars of stock's texts, and of others


def speed_figure(models: Sequence[tuple[str, Sequence[SteadyRow]]]) -> str:
    """Return an SVG of the speeds of some models, each a name and its rows.

    It brings its background, so it reads the same on a white and on a dark page.
    """
    groups = list(_groups(models))
    n_bars = sum(len(rows) for _, rows in groups)
    height = _TOP + len(groups) * _HEADING + n_bars * _PITCH + _FOOT
    most = max((r.x_stock for _, rows in groups for r in rows), default=1.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" "
        'font-size="13">',
        f"<title>{escape(caption(models))}</title>",
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6" '
        'fill="#ffffff" stroke="#d0d7de"/>',
        *_scale(most),
    ]
    y = _TOP
    for heading, rows in groups:
        parts.append(_text(16, y + 20, heading, 'font-weight="600"'))
        y += _HEADING
        top, bottom = y - 3, y + len(rows) * _PITCH - 3
        parts += _lines(most, top, bottom)
        for row in rows:
            parts += _bar(row, y)
            y += _PITCH
        for stroke in (
            'stroke="#ffffff" stroke-width="4"',
            'stroke="#1b1f24" stroke-width="1.5" stroke-dasharray="5 3"',
        ):
            parts.append(f'<line x1="{_at(1)}" y1="{top}" x2="{_at(1)}" y2="{bottom}" {stroke}/>')
    parts += [_text(16, height - 14, _foot(models), 'font-size="12" fill="#57606a"'), "</svg>"]
    return "\n".join(parts) + "\n"


def caption(models: Sequence[tuple[str, Sequence[SteadyRow]]]) -> str:
    """Return the figure in a sentence: what the modes reach that give stock's texts."""
    told = []
    for name, rows in models:
        same = [r.x_stock for _, of in _groups([(name, rows)]) for r in of if is_identical(r)]
        if same:
            told.append(f"{name} {min(same):.2f} to {max(same):.2f} x")
    return f"Bit-identical to stock llama.cpp at these speeds against it: {', '.join(told)}"


def is_identical(row: SteadyRow) -> bool:
    """Tell whether every text of a row is stock's."""
    return row.identical == row.prompts


def _groups(
    models: Sequence[tuple[str, Sequence[SteadyRow]]],
) -> Iterator[tuple[str, list[SteadyRow]]]:
    """Yield a heading and its rows, for each model and sampler."""
    for name, rows in models:
        for sampler, title in SAMPLERS.items():
            of = {r.mode: r for r in rows if r.sampler == sampler}
            shown = [of[mode] for mode in MODES if mode in of]
            if shown and "stock" in of:
                yield f"{name}, {title}: stock {of['stock'].tokens_per_second:.0f} tokens/s", shown


def _foot(models: Sequence[tuple[str, Sequence[SteadyRow]]]) -> str:
    prompts = sorted({r.prompts for _, rows in models for r in rows})
    return (
        f"Tokens a second, medians of {' or '.join(map(str, prompts))} prompts; "
        "white marks: the prompt that gains least."
    )


def _halves(most: float) -> list[float]:
    return [n / 2 for n in range(int(2 * most) + 2)]


def _scale(most: float) -> Iterator[str]:
    """Yield the figures above the bars."""
    for factor in _halves(most)[1:]:
        if factor == 1:
            yield _text(_at(1), _TOP - 12, "stock = 1", 'text-anchor="middle" font-weight="600"')
        else:
            grey = 'text-anchor="middle" fill="#57606a"'
            yield _text(_at(factor), _TOP - 12, f"{factor:g} x", grey)


def _lines(most: float, top: int, bottom: int) -> Iterator[str]:
    """Yield thin lines behind the bars of a group."""
    for factor in _halves(most):
        x = _at(factor)
        yield f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="#e3e6ea"/>'


def _bar(row: SteadyRow, y: int) -> Iterator[str]:
    """Yield the name of a mode, its bar with what its texts are, and its figures."""
    same = is_identical(row)
    inside = (
        "bit-identical to stock" if same else f"{row.identical} of {row.prompts} texts are stock's"
    )
    base = y + 14
    yield _text(_LEFT - 8, base, MODES[row.mode], 'text-anchor="end"')
    yield (
        f'<rect x="{_LEFT}" y="{y}" width="{_at(row.x_stock) - _LEFT:.1f}" height="{_BAR}" '
        f'rx="2" fill="{_COLOURS[same]}"/>'
    )
    yield (
        f'<rect x="{_at(row.x_stock_low) - 1:.1f}" y="{y + 3}" width="2" height="{_BAR - 6}" '
        'fill="#ffffff"/>'
    )
    yield _text(_LEFT + 7, base, inside, 'font-size="12" fill="#ffffff"')
    after = f"{row.x_stock:.2f} x, {row.tokens_per_second:.0f} tokens/s"
    yield _text(max(_at(row.x_stock), _at(1)) + 8, base, after)


def _at(factor: float) -> float:
    return round(_LEFT + factor * _UNIT, 1)


def _text(x: float, y: float, text: str, more: str = "") -> str:
    fill = "" if "fill=" in more else ' fill="#1b1f24"'
    return f'<text x="{x:g}" y="{y:g}"{fill}{" " + more if more else ""}>{escape(text)}</text>'
