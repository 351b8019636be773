"""Writes docs/cli.md from the parsers of the commands; with --check, tells whether it is new."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from vocabtailor_gguf.cli import _parsers

TARGET = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

_HEAD = """\
# The command line

Made from the parsers by `python tools/cli_docs.py`; `vocabtailor COMMAND --help` tells the same.

Results go to stdout, progress and notes to stderr. The exit code is 0,
1 for a failure, 2 for wrong usage.

On a terminal control characters in texts of models and files are made
visible: `^[` is an escape. A pipe or a file gets them as they are.
"""


def reference() -> str:
    """Returns the text of the file."""
    found = list(_parsers.commands())
    lines = [_HEAD, "| command | |", "|---|---|"]
    lines += [f"| [{name}](#vocabtailor-{name}) | {line} |" for name, line, _ in found]
    for _, _, parser in found:
        lines += ["", *_section(parser, "##")]
    return "\n".join(lines) + "\n"


def _section(parser: argparse.ArgumentParser, level: str) -> Iterator[str]:
    yield f"{level} {parser.prog}"
    if parser.description:
        yield f"\n{' '.join(parser.description.split())}"
    actions = [a for a in parser._actions if a.help != argparse.SUPPRESS]
    below = [a for a in actions if isinstance(a, argparse._SubParsersAction)]
    plain = [a for a in actions if a not in below and not isinstance(a, argparse._HelpAction)]
    if plain:
        yield "\n| option | |\n|---|---|"
    for action in plain:
        yield f"| {_cell(_names(action, parser))} | {_cell(_told(action))} |"
    if parser.epilog:
        yield f"\n```text\n{parser.epilog.rstrip()}\n```"
    for action in below:
        for name, sub in action.choices.items():
            sub.description = {a.dest: a.help for a in action._choices_actions}.get(name)
            yield ""
            yield from _section(sub, level + "#")


def _names(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Returns an option's spellings and what follows it."""
    formatter = parser._get_formatter()
    if not action.option_strings:
        shown = formatter._metavar_formatter(action, action.dest)(1)[0]
        return f"`{shown}`" + (" ..." if action.nargs in ("+", "*") else "")
    values = "" if action.nargs == 0 else f" {formatter._format_args(action, action.dest.upper())}"
    return ", ".join(f"`{o}`" for o in action.option_strings) + (
        f" `{values.strip()}`" * bool(values)
    )


def _told(action: argparse.Action) -> str:
    """Returns what an option does, whether it is needed, and its default."""
    text = " ".join((action.help or "").split()).replace("%%", "%")
    text = text.replace("%(default)s", str(action.default))
    if action.required and action.option_strings:
        text += " (required)"
    elif isinstance(action.default, str | int | float) and not isinstance(action.default, bool):
        if "default" not in text and action.default != argparse.SUPPRESS:
            text += f" (default: {action.default})"
    return text.strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Writes or checks the file."""
    text = reference()
    if "--check" in sys.argv[1:]:
        return int(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
