"""Print a script that lets a shell complete this command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from vocabtailor_gguf.errors import UnsupportedError

_EPILOG = """\
where the script goes:
  bash   vocabtailor completion bash > ~/.local/share/bash-completion/completions/vocabtailor
  zsh    vocabtailor completion zsh > DIR/_vocabtailor, DIR being a folder of $fpath
  fish   vocabtailor completion fish > ~/.config/fish/completions/vocabtailor.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError as e:
        raise UnsupportedError(
            "completion needs the package shtab: pip install 'vocabtailor_gguf[completion]'"
        ) from e
    from vocabtailor_gguf.cli import _parsers

    parser = _parsers.whole_parser()
    for action in _actions(parser):
        if _parsers.takes_file(action):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
