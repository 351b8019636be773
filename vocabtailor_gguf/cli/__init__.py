"""The ``vocabtailor`` command: finds the subcommand's module and imports only that one."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

_COMMANDS = {
    "split": "split a GGUF model into a core and a vocabulary store",
    "merge": "put a core and its store together again",
    "inspect": "show what a core, a store or a model holds",
    "verify": "check that a core and its store are whole and belong together",
    "profile": "profile a task's corpus into a static token set",
    "set": "show token sets and combine them",
    "run": "generate text from a split model",
    "chat": "talk with a model that has a chat template",
    "cache": "list and clear the models that were split on first use",
    "completion": "print a script that lets a shell complete commands and options",
    "doctor": "tell whether this machine can run split models, and how well",
    "score": "score a text: log-probabilities and perplexity",
    "bench": "measure speed and memory against stock llama-cpp-python",
}


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<9}{text}" for name, text in _COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="vocabtailor",
        description="Small language models on CPUs without most of their vocabulary.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nvocabtailor COMMAND --help tells more",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="vocabtailor COMMAND [OPTIONS]",
    )
    parser.add_argument("--version", action="store_true", help="show versions and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", choices=list(_COMMANDS))
    return parser


def _version() -> str:
    from importlib.metadata import version

    from vocabtailor_gguf.binding import native

    built_for = native.ffi.string(native.lib().vt_build_info()).decode()
    return f"vocabtailor {version('vocabtailor_gguf')} ({built_for})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 for success, 1 for failure, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments[:1])
    from vocabtailor_gguf.errors import VocabTailorError

    try:
        if options.version:
            print(_version())
            return 0
        if options.command is None:
            parser.print_help(sys.stderr)
            return 2
        module = importlib.import_module(f"vocabtailor_gguf.cli.{options.command}")
        sub = argparse.ArgumentParser(
            prog=f"vocabtailor {options.command}", description=module.__doc__
        )
        module.add_arguments(sub)
        return int(module.run(sub.parse_args(arguments[1:])))
    except VocabTailorError as e:
        from vocabtailor_gguf.cli import _screen

        print(f"vocabtailor: error: {_screen.shown(str(e), sys.stderr)}", file=sys.stderr)
        return 1
    except MemoryError as e:
        print(f"vocabtailor: error: out of memory: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader has gone; keep the interpreter from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def entry() -> int:
    """Run the command line as a program: in a child, whose crash becomes one sentence."""
    from vocabtailor_gguf.cli.supervise import supervise

    return supervise(main)
