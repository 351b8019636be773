"""Measure speed and memory against stock llama-cpp-python, in fresh processes that take turns."""

from __future__ import annotations

import argparse
import sys

from vocabtailor_gguf.bench.bench import (
    DEFAULT_MODES,
    MODES,
    llama_bench_json,
    markdown,
    run_benchmark,
)
from vocabtailor_gguf.bench.steady import (
    STEADY_MODES,
    read_prompts,
    run_steady,
    steady_markdown,
)
from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import VocabTailorError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _common.add_core(parser)
    parser.add_argument("--baseline", required=True, metavar="MODEL", help="the unsplit model")
    parser.add_argument(
        "--token-set",
        metavar="FILE",
        help="NAME.tokens.json (default: the 8,000 most frequent tokens of Python's help topics)",
    )
    parser.add_argument(
        "-f", "--file", metavar="FILE", help="prompt of the text tests (default: a help topic)"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="the steady way: one process, in which the modes take turns at each prompt of a file, "
        "a field prompt of .jsonl or paragraphs; tells whether texts are stock's",
    )
    parser.add_argument("-p", "--n-prompt", type=int, default=512, metavar="N", help="0: no test")
    parser.add_argument("-n", "--n-gen", type=int, default=128, metavar="N", help="0: no test")
    parser.add_argument("-r", "--repetitions", type=_common.positive, default=5, metavar="N")
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N")
    _common.add_drafts(parser)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(DEFAULT_MODES))
    parser.add_argument("-o", "--output", choices=["md", "json"], default="md")


def run(args: argparse.Namespace) -> int:
    """Measure, then print a table or JSON."""
    if not 0 <= args.n_prompt <= 512 or args.n_gen < 0:
        raise VocabTailorError("-p: expected 0 to 512, one batch; -n: expected 0 or more")
    if args.prompts is not None:
        return _steady(args)
    result = run_benchmark(
        args.model,
        args.baseline,
        vocab=args.vocab,
        token_set=args.token_set,
        text=None if args.file is None else _common.read_text(args.file),
        n_prompt=args.n_prompt,
        n_gen=args.n_gen,
        n_rounds=args.repetitions,
        n_threads=args.threads,
        modes=args.modes,
        drafts=args.drafts,
        progress=lambda line: print(line, file=sys.stderr),
    )
    if args.output == "json":
        _common.print_json(llama_bench_json(result))
    else:
        print(markdown(result))
    return 0


def _steady(args: argparse.Namespace) -> int:
    rows = run_steady(
        args.model,
        args.baseline,
        read_prompts(args.prompts, _common.read_text(args.prompts)),
        vocab=args.vocab,
        token_set=args.token_set,
        n_gen=args.n_gen,
        n_threads=args.threads,
        modes=[m for m in args.modes if m in STEADY_MODES],
        drafts=args.drafts,
        progress=lambda line: print(line, file=sys.stderr),
    )
    if args.output == "json":
        _common.print_json([dict(row) for row in rows])
    else:
        print(steady_markdown(rows))
    return 0
