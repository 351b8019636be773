"""A report as Markdown."""

from __future__ import annotations

from vocabtailor_gguf.bench.results import Report
from vocabtailor_gguf.bench.tables import Table, machine_lines, model_line, tables_of, title_of


def markdown(report: Report) -> str:
    """Return a header, and for each model its tables."""
    parts = ["\n".join(f"- {line}" for line in machine_lines(report))]
    for result in report.models:
        parts += [f"## {title_of(result)}", model_line(result)]
        for table in tables_of(result):
            parts += [f"### {table.title}", table.note, markdown_table(table)]
    return "\n\n".join(part for part in parts if part)


def markdown_table(table: Table) -> str:
    """Return a table without its title."""
    rules = ["---"] * table.n_names + ["---:"] * (len(table.head) - table.n_names)
    lines = [
        f"| {' | '.join(table.head)} |",
        f"|{'|'.join(rules)}|",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
    return "\n".join(lines).replace("  |", " |")
