"""List and clear the models that were split on first use, and what was learned."""

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
    """Print what there is, or what was removed."""
    learned = cache.learned_files()
    if args.action == "list":
        found, verb = cache.entries(), "in"
    else:
        found, verb = cache.clear(args.name), "removed from"
        learned = [path for path in learned if not path.exists()]
    names = [cache.learned_name(path) for path in learned]
    if args.json:
        _common.print_json({"folder": cache.cache_folder(), "entries": found, "learned": names})
        return 0
    for entry in found:
        print(f"{entry.name}\t{entry.n_bytes / 1e6:.0f} MB\t{entry.source or '?'}")
    for name in names:
        print(f"{name}\tlearned by chats and servers")
    total = sum(e.n_bytes for e in found)
    print(f"{len(found)} models, {total / 1e6:.0f} MB {verb} {cache.cache_folder()}")
    return 0
