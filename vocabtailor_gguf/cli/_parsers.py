"""The parsers of all commands as one, for completion and for the reference."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

from vocabtailor_gguf import cli

_FILES = {"FILE", "CORE", "MODEL", "VOCAB", "DIR"}


def commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield name, one line and parser of each command."""
    for name, line in cli._COMMANDS.items():
        module = importlib.import_module(f"vocabtailor_gguf.cli.{name}")
        parser = argparse.ArgumentParser(prog=f"vocabtailor {name}", description=module.__doc__)
        module.add_arguments(parser)
        yield name, line, parser


def whole_parser() -> argparse.ArgumentParser:
    """Return a parser whose subparsers are the commands."""
    parser = argparse.ArgumentParser(prog="vocabtailor")
    parser.add_argument("--debug", action="store_true", help=cli._DEBUG)
    parser.add_argument("--version", action="store_true", help="show versions and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND")
    for name, line in cli._COMMANDS.items():
        module = importlib.import_module(f"vocabtailor_gguf.cli.{name}")
        module.add_arguments(subparsers.add_parser(name, help=line, description=module.__doc__))
    return parser


def takes_file(action: argparse.Action) -> bool:
    """Tell whether the value of an option is a path."""
    names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar or "",)
    return any(n.removesuffix("...") in _FILES for n in names) and not action.choices
