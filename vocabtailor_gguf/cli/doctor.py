"""Tell whether this machine can run split models, how well, and what to do if not."""

from __future__ import annotations

import argparse
import sys
import textwrap

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.doctor.check import Check
from vocabtailor_gguf.doctor.examine import examine

_NAME = 14  # columns
_WIDTH = 100
_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "-m", "--model", metavar="CORE", help="check this split model too, and measure its speed"
    )
    parser.add_argument(
        "--vocab", metavar="FILE", help="NAME.vocab.gguf (default: the one beside the core)"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print each check as it is made; return 1 if one failed."""
    found = examine(args.model, args.vocab, progress=None if args.json else _show)
    if args.json:
        checks = [dict(c) for c in found.checks]
        _common.print_json({"ok": found.ok, "checks": checks})
    else:
        print("\nready" if found.ok else "\nnot ready: see the lines that failed")
    return 0 if found.ok else 1


def _show(check: Check) -> None:
    status = f"{check.status:<5}"
    if sys.stdout.isatty():
        status = f"\x1b[{_COLOURS[check.status]}m{status}\x1b[0m"
    indent = " " * (_NAME + 6)
    wrap = textwrap.TextWrapper(_WIDTH - len(indent), break_on_hyphens=False)
    lines = wrap.wrap(check.found) or [""]
    if check.advice:
        wrap.subsequent_indent = "   "
        lines += wrap.wrap(f"-> {check.advice}")
    print(f"{status} {check.name:<{_NAME}}" + f"\n{indent}".join(lines), flush=True)
