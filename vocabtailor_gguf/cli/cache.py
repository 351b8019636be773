"""List and clear the models that were split on first use."""

from __future__ import annotations

import argparse

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.split import cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="list|clear")
    shown = commands.add_parser("list", help="show what the cache holds, and where it lies")
    _common.add_json(shown)
    cleared = commands.add_parser("clear", help="remove one entry, or all")
    cleared.add_argument("name", nargs="?", metavar="NAME", help="as `list` shows it")
    _common.add_json(cleared)


def run(args: argparse.Namespace) -> int:
    """Print the entries that there are, or that were removed."""
    found = cache.entries() if args.action == "list" else cache.clear(args.name)
    if args.json:
        _common.print_json({"folder": cache.cache_folder(), "entries": found})
        return 0
    for entry in found:
        print(f"{entry.name}\t{entry.n_bytes / 1e6:.0f} MB\t{entry.source or '?'}")
    learned = sorted(cache.learned_folder().glob("*.tokens.json"))
    for path in learned:
        print(f"{path.relative_to(cache.cache_folder())}\tlearned by chats")
    total = sum(e.n_bytes for e in found)
    verb = "in" if args.action == "list" else "removed from"
    print(f"{len(found)} models, {total / 1e6:.0f} MB {verb} {cache.cache_folder()}")
    return 0
