"""A report as a page that needs no other file: tables, and pictures inside of it."""

from __future__ import annotations

import html
import re

from vocabtailor_gguf.bench.plots import plots_of
from vocabtailor_gguf.bench.results import Benchmark, Report
from vocabtailor_gguf.bench.tables import Table, machine_lines, model_line, tables_of, title_of

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
.machine { background: #f4f6f8; border-left: 4px solid #5b86c4; padding: .6rem 1rem; }
.note { color: #57606a; margin: .2rem 0 .6rem; max-width: 50rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #e3e6ea;
         white-space: nowrap; }
th.name, td.name { text-align: left; }
tr.begin td { border-top: 1px solid #9aa4af; }
thead th { border-bottom: 2px solid #9aa4af; vertical-align: bottom; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr));
         gap: 1rem 2rem; align-items: start; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
figure svg { width: 100%; height: auto; }
@media (max-width: 30rem) { .plots { grid-template-columns: 1fr; } }
"""


def page(report: Report) -> str:
    """Return the HTML page.

    Raises:
        UnsupportedError: ``matplotlib`` is not installed.
    """
    told = "<br>\n".join(html.escape(line) for line in machine_lines(report))
    models = "\n".join(_model(result, i) for i, result in enumerate(report.models))
    names = ", ".join(html.escape(result.baseline.name) for result in report.models)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Benchmark: {names}</title>\n<style>{_STYLE}</style></head>\n"
        f'<body>\n<h1>Benchmark</h1>\n<p class="machine">{told}</p>\n{models}\n</body></html>'
    )


def _model(result: Benchmark, n: int) -> str:
    pictures = "\n".join(
        f"<figure><figcaption>{html.escape(title)}</figcaption>{_own_ids(svg, f'm{n}p{i}')}"
        "</figure>"
        for i, (title, svg) in enumerate(plots_of(result))
    )
    parts = [f"<h2>{html.escape(title_of(result))}</h2>"]
    if line := model_line(result):
        parts.append(f"<p>{html.escape(line)}</p>")
    if pictures:
        parts.append(f'<div class="plots">\n{pictures}\n</div>')
    return "\n".join([*parts, *(_table(table) for table in tables_of(result))])


def _table(table: Table) -> str:
    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(
            f'<{tag} class="name">{html.escape(cell)}</{tag}>'
            if i < table.n_names
            else f"<{tag}>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    tests = [row[0] for row in table.rows]
    grouped = len(set(tests)) < len(tests)
    body = ""
    for i, row in enumerate(table.rows):
        # a line where another test begins, unless each row is one
        begins = grouped and i > 0 and row[0] != tests[i - 1]
        body += f"<tr{' class=begin' * begins}>{cells('td', row)}</tr>\n"
    note = f'<p class="note">{html.escape(table.note)}</p>\n' if table.note else ""
    return (
        f'<h3>{html.escape(table.title)}</h3>\n{note}<div class="wide"><table><thead><tr>'
        f"{cells('th', table.head)}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _own_ids(svg: str, prefix: str) -> str:
    """Return a picture whose ids are no other picture's."""
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    return svg.replace("url(#", f"url(#{prefix}-")
