"""Write the tables of the documentation from files of results, so that the two cannot drift.

    python tools/doc_tables.py             # rewrite the tables
    python tools/doc_tables.py --check     # exit with 1 where a table is not what its file says

A table stands between two comments, the first of which names a file of docs/results:

    <!-- table: evaluation smollm2.json mt_en_it -->
    <!-- end of table -->

The file is what ``vocabtailor eval --report FILE --json`` prints. After its name come data sets, by
default all of the file. ``brief NAME ...`` instead of ``evaluation`` gives one line for each data
set and variant, with the main metric. ``steady NAME`` is the table of what ``vocabtailor bench
--prompts FILE -o json`` prints.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vocabtailor_gguf.bench.steady import steady_markdown, steady_of_json
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.markdown import brief, markdown
from vocabtailor_gguf.evaluation.summary import groups_of_json

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
_KINDS = {"evaluation": markdown, "brief": brief}
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
    if kind not in (*_KINDS, "steady") or not names:
        raise VocabTailorError(
            f"{where}: table {asked!r}: expected {', '.join(_KINDS)} or steady, a file, data sets"
        )
    if kind == "steady":
        return f"\n{steady_markdown(_read(results / names[0], steady_of_json))}\n\n"
    groups = _read(results / names[0], groups_of_json)
    if len(names) > 1:
        known = {group.data for group in groups}
        for name in names[1:]:
            if name not in known:
                raise VocabTailorError(f"{where}: table {asked!r}: {name} is not in {names[0]}")
        groups = [group for name in names[1:] for group in groups if group.data == name]
    return f"\n{_KINDS[kind](groups)}\n\n"


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
    for path in [args.root / "README.md", *sorted((args.root / "docs").glob("*.md"))]:
        before = path.read_text(encoding="utf-8")
        try:
            after = rewritten(before, args.root / "docs" / "results", path.name)
        except VocabTailorError as e:
            print(f"doc_tables: {e}", file=sys.stderr)
            return 1
        if after == before:
            continue
        differing += 1
        print(path)
        if not args.check:
            path.write_text(after, encoding="utf-8")
    return 1 if args.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
