"""A report as a self-contained HTML page, or as Markdown with a figure beside it."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vocabtailor_gguf.atomic import temporary_files
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.profiling.cost import Cost, overlapping, verdict
from vocabtailor_gguf.profiling.figure import figure
from vocabtailor_gguf.profiling.report import Report, Size

_AIMS = (0.99, 0.999)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .45rem; text-align: right; border-bottom: 1px solid #e3e6ea; }
th:first-child, td:first-child { text-align: left; }
td:first-child, td:last-child { white-space: nowrap; }
thead th { border-bottom: 2px solid #9aa4af; vertical-align: bottom; }
.advice { background: #eef6ee; border-left: 4px solid #3a8f4a; padding: .6rem 1rem; }
svg { width: 100%; height: auto; } code { background: #f1f3f5; padding: 0 .25rem; }
"""


def write_report(report: Report, path: str | os.PathLike[str]) -> list[Path]:
    """Write a report; the kind follows from the name, .html or .md.

    The page is self-contained. Markdown gets its figure in a file of the same stem, ``NAME.svg``.

    Returns:
        The files.

    Raises:
        BadFileError: A file cannot be written.
        UnsupportedError: ``matplotlib`` is not installed.
        VocabTailorError: The name ends otherwise.
    """
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in (".html", ".md"):
        raise VocabTailorError(f"{target}: a report ends in .html or .md")
    svg = figure(report)
    files = {target: page(report, svg)}
    if kind == ".md":
        picture = target.with_suffix(".svg")
        files = {target: markdown(report, picture.name), picture: svg}
    with temporary_files(*files) as temporary:
        for name, text in zip(temporary, files.values(), strict=True):
            Path(name).write_text(text, encoding="utf-8")
    return list(files)


def advice(report: Report) -> list[str]:
    """Return one sentence for each aim: the smallest set that reaches it."""
    if report.held_out is None and report.own is None:
        return ["No held-out texts were given, so nothing is known about coverage."]
    told_apart = verdict([s.cost for s in report.sizes]) != "noise"
    whose = "the model's own output tokens" if report.own else "the held-out output tokens"
    sentences = []
    for aim in _AIMS:
        size = report.least(aim)
        if size is None:
            sentences.append(f"No size shown covers {aim:.1%} of {whose}.")
            continue
        time = f", {size.cost.ms:.2f} ms a token" if told_apart else ""
        sentences.append(
            f"{aim:.1%} of {whose} are covered from {size.name} on: {size.rows:,} rows, "
            f"{size.cost.mb:.1f} MB{time}."
        )
    return sentences


def about_times(report: Report) -> str:
    """Return what the head times are, and in words where the machine did not let them be told."""
    text = (
        "Head times are of one token with cold caches and "
        f"{report.n_threads} threads on this machine: medians of runs in which the sizes took "
        "turns, and the middle half of them."
    )
    costs = [s.cost for s in report.sizes]
    found = verdict(costs)
    if found == "noise":
        text += (
            " The machine was too busy to tell: these times differ more from run to run than from "
            "size to size, so they are no measure of the sizes. Memory is."
        )
    if found == "partly":
        names = [s.name for s in report.sizes]
        pairs = ", ".join(f"{names[i]} and {names[j]}" for i, j in overlapping(costs))
        text += f" The times of {pairs} overlap and cannot be told apart."
    return text


def _time(cost: Cost) -> str:
    return f"{cost.ms:.2f} ({cost.ms_low:.2f} to {cost.ms_high:.2f})"


def _size_table(report: Report) -> tuple[list[str], list[list[str]]]:
    head = ["set", "rows", "of the vocabulary"]
    columns: list[tuple[str, Any]] = []
    for title, of in (("held-out", "held_out"), ("own", "own")):
        if getattr(report, of) is not None:
            head += [f"{title}: set", f"{title}: + prompt", f"{title}: + forms"]
            columns += [(of, which) for which in ("set", "prompt", "expanded")]
    if report.own is not None:
        head.append("own outputs whole")
    head += ["head MB", "head ms"]

    def row(size: Size) -> list[str]:
        shares = [f"{getattr(size, of)[which]:.2%}" for of, which in columns]
        whole = [] if size.own_whole is None else [f"{size.own_whole:.0%}"]
        cost = [f"{size.cost.mb:.1f}", _time(size.cost)]
        return [size.name, f"{size.rows:,}", f"{size.vocab_share:.1%}", *shares, *whole, *cost]

    return head, [row(s) for s in report.sizes]


def _stage_table(report: Report) -> tuple[list[str], list[list[str]]]:
    stages = list(next(iter(report.stages.values()), {}))
    return (
        ["tolerance", *(s.replace("_", " ") for s in stages)],
        [[t, *(f"{n:,}" for n in counts.values())] for t, counts in report.stages.items()],
    )


def _missed_table(report: Report) -> tuple[list[str], list[list[str]]]:
    return (
        ["token", "id", "times", "in from rows"],
        [[repr(m.text), str(m.id), str(m.count), f"{m.rows_needed:,}"] for m in report.missed],
    )


def _sections(report: Report) -> Iterable[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    if report.stages:
        yield (
            "Ids after each stage",
            f"Besides, {report.n_always_on:,} tokens are always on.",
            _stage_table(report),
        )
    yield (
        "Sets by size",
        "Tokens outside the active set cannot be produced in tailored mode. Forms are the prompt's "
        f"words with and without a leading space and in other cases. {about_times(report)}",
        _size_table(report),
    )
    if report.missed:
        yield (
            "Most often missed",
            f"By a set of the size '{report.missed_at}', with prompt and forms.",
            _missed_table(report),
        )


def _facts(report: Report) -> list[str]:
    facts = [f"Model {report.model}, {report.n_vocab:,} tokens."]
    if report.data:
        facts.append(f"Profiled from {', '.join(report.data)}.")
    for title, coverage in (("Held-out", report.held_out), ("The model's own", report.own)):
        if coverage is not None:
            facts.append(
                f"{title} outputs: {coverage.n_texts:,} texts, {coverage.ids.size:,} tokens; a "
                f"prompt asks for {coverage.prompt_rows:,.0f} rows, with other forms of its words "
                f"for {coverage.expanded_rows:,.0f}."
            )
    return facts


def markdown(report: Report, picture: str) -> str:
    """Return the report as Markdown; `picture` is the name of the figure's file."""

    def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in r) + " |" for r in lines)

    parts = ["# Token sets for this task", *_facts(report)]
    parts.append("\n".join(f"- **{s}**" for s in advice(report)))
    parts.append(f"![Coverage and cost by size of the set]({picture})")
    for title, note, (head, rows) in _sections(report):
        parts += [f"## {title}", note, table(head, rows)]
    return "\n\n".join(parts) + "\n"


def page(report: Report, svg: str) -> str:
    """Return the report as an HTML page that needs no other file."""

    def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        titles = "".join(f"<th>{html.escape(c)}</th>" for c in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in r) + "</tr>\n" for r in rows
        )
        return f"<table><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table>"

    facts = "<br>\n".join(html.escape(f) for f in _facts(report))
    told = "<br>\n".join(html.escape(s) for s in advice(report))
    sections = "\n".join(
        f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(note)}</p>\n{table(head, rows)}"
        for title, note, (head, rows) in _sections(report)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>Token sets: {html.escape(report.model)}</title>\n<style>{_STYLE}</style></head>\n"
        f'<body>\n<h1>Token sets for this task</h1>\n<p>{facts}</p>\n<p class="advice">{told}</p>\n'
        f"{svg}\n{sections}\n</body></html>\n"
    )
