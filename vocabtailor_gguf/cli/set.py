"""Show token sets and combine them."""

from __future__ import annotations

import argparse
import sys
from functools import reduce

from vocabtailor_gguf.cli import _common, _screen
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.sets.token_set import TokenSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("action", choices=["show", "union", "intersection", "diff"])
    parser.add_argument("files", nargs="+", metavar="FILE", help="NAME.tokens.json")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the result goes")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Show each file, or combine all from left to right."""
    sets = [TokenSet.load(f) for f in args.files]
    if args.action == "show":
        shown = [
            {"path": f, "ids": len(s), "tokenizer": s.tokenizer, "provenance": dict(s.provenance)}
            for f, s in zip(args.files, sets, strict=True)
        ]
        if args.json:
            _common.print_json(shown)
            return 0
        for entry in shown:
            print(f"{entry['path']}: {entry['ids']:,} ids, tokenizer {entry['tokenizer']}")
            for key, value in dict(entry["provenance"]).items():
                print(_screen.shown(f"  {key}: {value}", sys.stdout))
        return 0
    combine = {
        "union": TokenSet.union,
        "intersection": TokenSet.intersection,
        "diff": TokenSet.difference,
    }[args.action]
    if args.output is None:
        raise VocabTailorError(f"set {args.action}: needs -o FILE")
    result = reduce(combine, sets)
    result.save(args.output)
    print(f"{len(result):,} ids", file=sys.stderr)
    print(args.output)
    return 0
