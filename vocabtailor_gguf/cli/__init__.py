"""The ``vocabtailor`` command: finds the subcommand's module and imports only that one."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from vocabtailor_gguf.cli import console

_COMMANDS = {
    "split": "split a GGUF model into a core and a vocabulary store",
    "merge": "put a core and its store together again",
    "inspect": "show what a core, a store or a model holds",
    "verify": "check that a core and its store are whole and belong together",
    "profile": "profile a task's corpus into a static token set",
    "set": "show token sets and combine them",
    "run": "generate text from a split model",
    "chat": "talk with a model that has a chat template",
    "serve": "serve a model over HTTP, as OpenAI's interface has it",
    "cache": "list and clear the models that were split on first use",
    "completion": "print a script that lets a shell complete commands and options",
    "doctor": "tell whether this machine can run split models, and how well",
    "score": "score a text: log-probabilities and perplexity",
    "eval": "evaluate models on tasks, with each mode and token set",
    "bench": "measure speed and memory against stock llama-cpp-python",
}

_DEBUG = "show where in the program an error was found"


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<9}{text}" for name, text in _COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="vocabtailor",
        description="Small language models on CPUs without most of their vocabulary.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nvocabtailor COMMAND --help tells more",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="vocabtailor [--debug] COMMAND [OPTIONS]",
    )
    parser.add_argument("--debug", action="store_true", help=_DEBUG)
    parser.add_argument("--version", action="store_true", help="show versions and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", choices=list(_COMMANDS))
    return parser


def _version() -> str:
    from importlib.metadata import version

    from vocabtailor_gguf.binding import native

    built_for = native.ffi.string(native.lib().vt_build_info()).decode()
    return f"vocabtailor {version('vocabtailor_gguf')} ({built_for})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 for success, 1 for failure, 2 for wrong usage.

    An error is a sentence on stderr; with ``--debug`` it is the exception itself.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _wants_debug(arguments)
    from vocabtailor_gguf.errors import VocabTailorError

    try:
        try:
            code = _run(arguments)
        except SystemExit:
            console.flush()  # of a help text
            raise
        console.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has gone
        console.give_up()
        return 1
    except Exception as e:
        console.give_up()
        if debug:
            raise
        console.say(str(e) if isinstance(e, VocabTailorError) else _sentence(e))
        return 1


def _wants_debug(arguments: list[str]) -> bool:
    """Take ``--debug`` off the arguments, where it stands before the command."""
    found = False
    while arguments[:1] == ["--debug"]:
        del arguments[0]
        found = True
    return found


def _run(arguments: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments[:1])
    if options.version:
        print(_version())
        return 0
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    module = importlib.import_module(f"vocabtailor_gguf.cli.{options.command}")
    sub = argparse.ArgumentParser(prog=f"vocabtailor {options.command}", description=module.__doc__)
    module.add_arguments(sub)
    return int(module.run(sub.parse_args(arguments[1:])))


def _sentence(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    if isinstance(error, OSError):
        words = error.strerror or str(error)
        return f"{error.filename}: {words}" if error.filename else words
    if isinstance(error, ImportError):
        return f"a package is missing or damaged: {error}"
    told = str(error).strip() or "no more is known"
    return f"{type(error).__name__}: {told} (vocabtailor --debug COMMAND tells where)"


def entry() -> int:
    """Run the command line as a program: in a child, whose crash becomes one sentence."""
    from vocabtailor_gguf.cli.supervise import supervise

    console.prepare()
    return supervise(main)
