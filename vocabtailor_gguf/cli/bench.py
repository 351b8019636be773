"""Measure speed and memory against stock llama-cpp-python, in fresh processes that take turns."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from vocabtailor_gguf.bench.flat import csv_text, json_rows
from vocabtailor_gguf.bench.machine import this_machine
from vocabtailor_gguf.bench.markdown import markdown
from vocabtailor_gguf.bench.page import page
from vocabtailor_gguf.bench.results import Benchmark, Report
from vocabtailor_gguf.bench.run import run_benchmark
from vocabtailor_gguf.bench.steady import STEADY_MODES, read_prompts, run_steady
from vocabtailor_gguf.bench.workloads import DEFAULT_MODES, DEFAULT_PARTS, MODES, PARTS
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.pair import CORE_SUFFIX, read_pair, sibling_store
from vocabtailor_gguf.sets.token_set import TokenSet
from vocabtailor_gguf.svg import check_can_draw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "-m", "--model", nargs="+", required=True, metavar="CORE", help="NAME.core.gguf, or several"
    )
    parser.add_argument(
        "--baseline", nargs="+", metavar="MODEL",
        help="the unsplit models, one for each core (default: NAME.gguf beside the core)",
    )  # fmt: skip
    parser.add_argument(
        "--vocab", nargs="+", metavar="FILE",
        help="NAME.vocab.gguf, one for each core (default: the one beside the core)",
    )  # fmt: skip
    parser.add_argument(
        "--token-set", nargs="+", metavar="FILE",
        help="NAME.tokens.json, one for each core (default: the 8,000 most frequent tokens of "
        "Python's help topics)",
    )  # fmt: skip
    parser.add_argument(
        "-f", "--file", metavar="FILE", help="prompt of the text tests (default: a help topic)"
    )
    parser.add_argument(
        "--prompts", metavar="FILE",
        help="the steady way: one process, in which the modes take turns at each prompt of a file, "
        "a field prompt of .jsonl or paragraphs; tells whether texts are stock's. Without --parts "
        "nothing else is measured",
    )  # fmt: skip
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, metavar="NAME",
        help="what to measure in fresh processes: text; prompt; start: load and first token, from "
        "a cold and a warm page cache; json: under a JSON grammar; grow, swap: changes of the "
        "active set; size: sets of 1,024 ids up to the vocabulary; depth: after up to 2,048 "
        "tokens; requant: stock with a head of another type (default: prompt text)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="all parts")
    parser.add_argument("-p", "--n-prompt", type=int, default=512, metavar="N", help="0: no test")
    parser.add_argument("-n", "--n-gen", type=int, default=128, metavar="N", help="0: no test")
    parser.add_argument("-r", "--repetitions", type=_common.positive, default=5, metavar="N")
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N")
    _common.add_drafts(parser)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(DEFAULT_MODES))
    parser.add_argument(
        "-o", "--output", choices=["md", "json", "csv", "html"], default="md",
        help="json has the keys of llama-bench; html is a page with plots, which wants the extra "
        "report (default: md)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, then print tables, a page, JSON or CSV."""
    if not 0 <= args.n_prompt <= 512 or args.n_gen < 0:
        raise VocabTailorError("-p: expected 0 to 512, one batch; -n: expected 0 or more")
    if args.output == "html":
        check_can_draw("a page")  # rather than after all was measured
    models = _models(args)
    text = None if args.file is None else _common.read_text(args.file)
    prompts = None
    if args.prompts is not None:
        prompts = read_prompts(args.prompts, _common.read_text(args.prompts))
        if args.n_gen < 2:
            raise VocabTailorError(f"-n: found {args.n_gen}, expected 2 or more with --prompts")
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = this_machine(args.threads or os.cpu_count() or 1)
    report = Report(machine, began, tuple(_measured(args, one, text, prompts) for one in models))
    if args.output == "json":
        _common.print_json(json_rows(report))
    elif args.output == "csv":
        sys.stdout.write(csv_text(report))
    else:
        print(page(report) if args.output == "html" else markdown(report))
    return 0


@dataclasses.dataclass(frozen=True)
class _Model:
    core: str
    baseline: str
    vocab: str | None
    token_set: str | None


def _models(args: argparse.Namespace) -> list[_Model]:
    n = len(args.model)
    for option in ("baseline", "vocab", "token_set"):
        given = getattr(args, option)
        if given is not None and len(given) != n:
            name = option.replace("_", "-")
            raise VocabTailorError(f"--{name}: found {len(given)}, expected {n}, one for each core")
    baselines = args.baseline or [_beside(core) for core in args.model]
    columns = [args.model, baselines, args.vocab or [None] * n, args.token_set or [None] * n]
    models = [_Model(*one) for one in zip(*columns, strict=True)]
    for model in models:
        _check(model)  # the last one too, before the first one is measured
    return models


def _check(model: _Model) -> None:
    GGUFHeader(model.baseline, lenient=True)
    vocab = model.vocab or sibling_store(model.core)
    read_pair(model.core, vocab)
    if model.token_set is not None:
        with VocabStore(vocab) as store:
            TokenSet.load(model.token_set).check(store, model.token_set)


def _beside(core: str) -> str:
    """Return the unsplit model that lies beside ``NAME.core.gguf``."""
    path = Path(core)
    found = path.with_name(path.name.removesuffix(CORE_SUFFIX) + ".gguf")
    if not path.name.endswith(CORE_SUFFIX) or not found.is_file():
        raise BadFileError(f"{core}: no unsplit model NAME.gguf beside it; give --baseline MODEL")
    return str(found)


def _measured(
    args: argparse.Namespace, model: _Model, text: str | None, prompts: list[str] | None
) -> Benchmark:
    def progress(line: str) -> None:
        name = f"{Path(model.core).name}: " if len(args.model) > 1 else ""
        print(f"{name}{line}", file=sys.stderr)

    parts = PARTS if args.all else args.parts or (() if prompts else DEFAULT_PARTS)
    threads = args.threads or os.cpu_count() or 1
    result = Benchmark(Path(model.core), Path(model.baseline), threads, 0, ())
    if parts:
        result = run_benchmark(
            model.core,
            model.baseline,
            vocab=model.vocab,
            token_set=model.token_set,
            text=text,
            n_prompt=args.n_prompt,
            n_gen=args.n_gen,
            n_rounds=args.repetitions,
            n_threads=threads,
            modes=args.modes,
            parts=parts,
            drafts=args.drafts,
            progress=progress,
        )
    if prompts is None:
        return result
    steady = run_steady(
        model.core,
        model.baseline,
        prompts,
        vocab=model.vocab,
        token_set=model.token_set,
        n_gen=args.n_gen,
        n_threads=threads,
        modes=[m for m in args.modes if m in STEADY_MODES],
        drafts=args.drafts,
        progress=progress,
    )
    return dataclasses.replace(result, steady=tuple(steady))
