"""Profile a task's corpus into a static token set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.profiling.counting import Counts
from vocabtailor_gguf.profiling.evaluate import evaluate
from vocabtailor_gguf.profiling.profile import RECIPES, Profile, profile, rows_of_budget
from vocabtailor_gguf.profiling.render import advice, write_report
from vocabtailor_gguf.profiling.scripts import DEFAULT_CLASSES
from vocabtailor_gguf.profiling.tasks import TASKS, Task, get_task
from vocabtailor_gguf.sets.token_set import TokenSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("-m", "--model", required=True, metavar="VOCAB", help="NAME.vocab.gguf")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="files, globs, - for stdin (JSONL)"
    )
    parser.add_argument("--task", choices=list(TASKS), help="preset of fields and templates")
    parser.add_argument("--input-field", metavar="NAME", help="field of the text that is given")
    parser.add_argument("--output-field", metavar="NAME", help="field of the text that is wanted")
    parser.add_argument("--script", nargs="+", default=[], metavar="NAME", help="e.g. latin han")
    parser.add_argument(
        "--classes", nargs="+", default=list(DEFAULT_CLASSES), metavar="NAME",
        help="characters beside the scripts: digits punctuation spaces symbols maths emoji",
    )  # fmt: skip
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--tolerance", nargs="+", type=float, default=[0.01], metavar="T",
        help="share of documents that may lose a token; several give a set each",
    )  # fmt: skip
    target.add_argument("--rows", type=_common.positive, metavar="N", help="a budget of rows")
    target.add_argument("--head-mb", type=float, metavar="MB", help="a budget of head memory")
    target.add_argument("--recipe", choices=list(RECIPES), help="a size that has proved good")
    parser.add_argument("--language", metavar="CODES", help="word lists of wordfreq, e.g. it,en")
    parser.add_argument("--words", type=_common.positive, default=20_000, metavar="N")
    parser.add_argument("--counts", metavar="FILE", help="add counts of an earlier run")
    parser.add_argument("--save-counts", metavar="FILE", help="save the counts of this run")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad records out")
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N", help="processes")
    parser.add_argument(
        "--dask", metavar="SCHEDULER", help="tokenise on a Dask cluster, e.g. tcp://host:8786"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="NAME.tokens.json")
    parser.add_argument("--report", metavar="FILE", help="coverage and cost by size: .html or .md")
    parser.add_argument("--eval", nargs="+", default=[], metavar="FILE", help="held-out texts")
    parser.add_argument(
        "--core", metavar="FILE", help="NAME.core.gguf, to evaluate on the model's own outputs"
    )
    parser.add_argument(
        "--own", type=_common.positive, default=20, metavar="N", help="prompts that it answers"
    )
    parser.add_argument(
        "--shots", type=int, default=2, metavar="N", help="examples of --data before each of them"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Profile, write the sets and the report, print what each stage left."""
    if not (args.output or args.report or args.save_counts):
        raise VocabTailorError("profile: needs -o, --report or --save-counts")
    if args.report is None and (args.eval or args.core):
        raise VocabTailorError("profile: --eval and --core need --report")
    if args.core and not args.eval:
        raise VocabTailorError("profile: --core needs the prompts of --eval")
    task = get_task(
        args.task or ("translation" if args.input_field else "text"),
        input_field=args.input_field,
        output_field=args.output_field,
    )
    if not task.static and not args.language and not args.report:
        raise VocabTailorError(
            f"task {args.task}: its outputs come from the prompt; it needs no static set"
        )
    with _common.progress_bar("profile") as bar:
        found = profile(
            args.model,
            args.data,
            task=task,
            scripts=args.script,
            classes=args.classes,
            languages=args.language.split(",") if args.language else [],
            n_words=args.words,
            counts=Counts.load(args.counts) if args.counts else None,
            n_processes=args.threads,
            scheduler=args.dask,
            skip_bad=args.skip_bad,
            progress=lambda documents, n_bytes: bar(n_bytes, 0),
        )
    if args.save_counts:
        found.counts.save(args.save_counts)
    results: list[dict[str, Any]] = []
    if args.output:
        sets = _sets(found, args)
        for chosen in sets:
            path = _name(args.output, chosen, len(sets) > 1)
            chosen.save(path)
            results.append({"path": path, "ids": len(chosen), **chosen.provenance})
    reports = _report(found, task, args) if args.report else []
    if args.json:
        _common.print_json(results)
        return 0
    _print_stages(found, results)
    for path in reports:
        print(path)
    return 0


def _sets(found: Profile, args: argparse.Namespace) -> list[TokenSet]:
    if args.recipe:
        return [found.of_recipe(args.recipe)]
    rows = args.rows
    if args.head_mb is not None:
        with VocabStore(args.model) as store:
            rows = rows_of_budget(store, args.head_mb)
    return [found.with_rows(rows)] if rows else [found.at_tolerance(t) for t in args.tolerance]


def _report(found: Profile, task: Task, args: argparse.Namespace) -> list[Path]:
    with _common.progress_bar("answers", unit="") as bar:
        report = evaluate(
            args.model,
            found,
            task,
            held_out=args.eval,
            core=args.core,
            n_own=args.own if args.core else 0,
            n_shots=args.shots,
            n_threads=args.threads,
            progress=bar,
        )
    for sentence in advice(report):
        print(sentence, file=sys.stderr)
    return write_report(report, args.report)


def _name(output: str, chosen: TokenSet, several: bool) -> Path:
    path = Path(output)
    if not several:
        return path
    stem = path.name.removesuffix(".tokens.json").removesuffix(".json")
    return path.with_name(f"{stem}.{chosen.provenance['tolerance']:g}.tokens.json")


def _print_stages(found: Profile, results: list[dict[str, Any]]) -> None:
    counts = found.counts
    print(
        f"{counts.n_documents:,} documents, {counts.n_tokens:,} output tokens, "
        f"{counts.n_bytes / 1e6:.1f} MB; {found.n_skipped:,} bad records left out",
        file=sys.stderr,
    )
    for result in results:
        stages = ", ".join(f"{name} {n:,}" for name, n in result["stages"].items())
        print(f"tolerance {result['tolerance']:.4g}: {stages}", file=sys.stderr)
        print(result["path"])
