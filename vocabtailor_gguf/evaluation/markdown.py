"""Summaries as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from vocabtailor_gguf.evaluation.summary import Figure, GroupSummary, VariantSummary


def markdown(groups: Sequence[GroupSummary]) -> str:
    """Return a heading line and a table for each model and data set."""
    return "\n\n".join(f"{heading(group)}\n\n{table(group)}" for group in groups)


def heading(group: GroupSummary) -> str:
    """Return what a table is of."""
    n = max(v.n for v in group.variants)
    threads = "" if group.n_threads is None else f", {group.n_threads} threads"
    return (
        f"**{group.model}, {group.data}**: {n} rows, {group.style} prompts with {group.shots} "
        f"examples{threads}, llama-cpp-python {group.llama}"
    )


def table(group: GroupSummary) -> str:
    """Return a table of the variants of a model on a data set."""
    names = [figure.name for figure in group.variants[0].figures]
    columns = ["variant", "set"]
    for name in names:
        columns += [name, "less full's [95%]"]
    columns += ["identical", "same tokens", "out of set", "active rows", "tokens/s", "MB"]
    lines = [_line(columns), "|---|" + "---:|" * (len(columns) - 1)]
    n_most = max(v.n for v in group.variants)
    return "\n".join([*lines, *(_row(variant, n_most) for variant in group.variants)])


def brief(groups: Sequence[GroupSummary]) -> str:
    """Return one table of all models and data sets, with the main metric.

    Variants may have been computed on different numbers of rows: the difference is that on the rows
    that both have.
    """
    columns = ["model", "data", "metric", "variant", "rows", "value", "less full's [95%]"]
    columns += ["identical", "out of set", "active rows", "MB"]
    lines = [_line(columns), "|---|---|---|---|" + "---:|" * (len(columns) - 4)]
    for group in groups:
        for found in group.variants:
            figure = found.figures[0]
            cells = [group.model, group.data, figure.name, found.variant, f"{found.n}"]
            cells += [
                f"{figure.value:.2f}",
                _difference(figure),
                f"{found.identical:.1%}",
                f"{found.outside:.2%}",
            ]
            cells += [f"{found.head_rows:,.0f}", f"{found.memory / 1e6:.1f}"]
            lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _row(found: VariantSummary, n_most: int) -> str:
    name = found.variant if found.n == n_most else f"{found.variant} ({found.n} rows)"
    cells = [name, "" if found.set_rows is None else f"{found.set_rows:,}"]
    for figure in found.figures:
        cells += [f"{figure.value:.2f}", _difference(figure)]
    cells += [
        f"{found.identical:.1%}",
        f"{found.agreement:.1%}",
        f"{found.outside:.2%}",
        f"{found.head_rows:,.0f}",
        f"{found.tokens_per_second:.1f}",
        f"{found.memory / 1e6:.1f}",
    ]
    return _line(cells)


def _difference(figure: Figure) -> str:
    away = figure.difference
    return "" if away is None else f"{away.value:+.2f} [{away.low:+.2f}, {away.high:+.2f}]"
