"""Write the tables and figures of the documentation from files of results, so that they agree.

    python tools/doc_tables.py             # rewrite tables and figures
    python tools/doc_tables.py --check     # exit with 1 where one is not what its file says

A table stands between two comments, the first of which names a file of docs/results:

    <!-- table: evaluation smollm2.json mt_en_it -->
    <!-- end of table -->

The file is what ``vocabtailor eval --report FILE --json`` prints. After its name come data sets, by
default all of the file. ``brief NAME ...`` instead of ``evaluation`` gives one line for each data
set and variant, with the main metric.

``steady NAME`` is the table of what ``vocabtailor bench --prompts FILE -o json`` prints; ``speed
NAME ...`` is short and takes several models; ``figure FILE.svg NAME ...`` also draws them into a
file, whose name is relative to the document.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from speed_figure import MODES, SAMPLERS, caption, speed_figure

from vocabtailor_gguf.bench.markdown import markdown_table
from vocabtailor_gguf.bench.steady import SteadyRow, steady_of_json
from vocabtailor_gguf.bench.tables import steady_table
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.markdown import brief, markdown
from vocabtailor_gguf.evaluation.summary import groups_of_json

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
_KINDS = {"evaluation": markdown, "brief": brief}
_STEADY = ("steady", "speed", "figure")
_NAMES = {
    "steady-gemma.json": "Gemma 3 270M (Q4_K_M)",
    "steady-smollm2.json": "SmolLM2 135M (Q4_1)",
}
_TEXTS = ("identical", "prompts")
_TABLE = re.compile(r"(<!-- table: ([^\n]*?) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
_BEGIN = "<!-- table:"


def rewritten(text: str, results: Path, where: str) -> str:
    """Return a document with its tables made anew.

    Args:
        text: The document.
        results: Folder of the results.
        where: Named by errors.

    Raises:
        VocabTailorError: A table cannot be made.
    """
    if len(_TABLE.findall(text)) != text.count(_BEGIN):
        raise VocabTailorError(f"{where}: a table has no end, or no beginning of its own line")
    return _TABLE.sub(lambda found: f"{found[1]}{_table(found[2], results, where)}{found[4]}", text)


def _table(asked: str, results: Path, where: str) -> str:
    kind, _, rest = asked.partition(" ")
    names = rest.split()
    if kind not in (*_KINDS, *_STEADY) or len(names) < (2 if kind == "figure" else 1):
        raise VocabTailorError(
            f"{where}: table {asked!r}: expected {', '.join(_KINDS)}, {', '.join(_STEADY[:-1])} "
            "or figure, a file (of a figure, and results), data sets"
        )
    if kind == "steady":
        rows = _read(results / names[0], steady_of_json)
        return f"\n{markdown_table(steady_table(rows, with_way=False))}\n\n"
    if kind == "speed":
        return f"\n{speed_markdown(_models(names, results))}\n\n"
    if kind == "figure":
        return f"\n![{caption(_models(names[1:], results))}]({names[0]})\n\n"
    groups = _read(results / names[0], groups_of_json)
    if len(names) > 1:
        known = {group.data for group in groups}
        for name in names[1:]:
            if name not in known:
                raise VocabTailorError(f"{where}: table {asked!r}: {name} is not in {names[0]}")
        groups = [group for name in names[1:] for group in groups if group.data == name]
    return f"\n{_KINDS[kind](groups)}\n\n"


def _models(names: Sequence[str], results: Path) -> list[tuple[str, list[SteadyRow]]]:
    """Return each model's name and rows."""
    return [
        (_NAMES.get(name, Path(name).stem), _read(results / name, steady_of_json)) for name in names
    ]


def speed_markdown(models: Sequence[tuple[str, Sequence[SteadyRow]]]) -> str:
    """Return a table of what matters first: a line for each model and mode."""
    lines = [
        "| model | mode |"
        + "".join(
            f" {title.replace('temperature', 'temp')}, tokens/s | x stock |"
            for title in SAMPLERS.values()
        )
        + " texts that are stock's |",
        "|---|---|" + "---:|---:|" * len(SAMPLERS) + "---:|",
    ]
    for name, rows in models:
        shown = name.partition(" (")[0]  # once for each model, so that columns are narrow
        for mode, title in {"stock": "stock", **MODES}.items():
            of = {r.sampler: r for r in rows if r.mode == mode}
            if set(of) < set(SAMPLERS):
                continue
            cells, shown = [shown, title], ""
            for sampler in SAMPLERS:
                cells += [f"{of[sampler].tokens_per_second:.0f}", f"{of[sampler].x_stock:.2f}"]
            same, n = (sum(getattr(r, what) for r in of.values()) for what in _TEXTS)
            lines.append("| " + " | ".join([*cells, f"{same} of {n}"]) + " |")
    return "\n".join(lines)


def figures(text: str, results: Path) -> dict[str, str]:
    """Return the figures of a document: names of files, relative to it, and what they hold."""
    drawn = {}
    for found in _TABLE.finditer(text):
        kind, *names = found[2].split()
        if kind == "figure":
            drawn[names[0]] = speed_figure(_models(names[1:], results))
    return drawn


def _read(path: Path, made: Callable[[Any], list[T]]) -> list[T]:
    try:
        return made(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise VocabTailorError(f"{path}: {type(e).__name__}: {e}") from e


def main() -> int:
    """Rewrite or check README.md and docs/*.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md and docs")
    args = parser.parse_args()
    differing = 0
    for document in [args.root / "README.md", *sorted((args.root / "docs").glob("*.md"))]:
        before = document.read_text(encoding="utf-8")
        results = args.root / "docs" / "results"
        try:
            files = {document: rewritten(before, results, document.name)}
            drawn = figures(before, results)
        except VocabTailorError as e:
            print(f"doc_tables: {e}", file=sys.stderr)
            return 1
        files |= {document.parent / name: svg for name, svg in drawn.items()}
        for path, after in files.items():
            if path.exists() and path.read_text(encoding="utf-8") == after:
                continue
            differing += 1
            print(path)
            if not args.check:
                path.write_text(after, encoding="utf-8")
    return 1 if args.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
