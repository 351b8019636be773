"""Profile a task's corpus into a static token set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.profiling.counting import Counts
from vocabtailor_gguf.profiling.profile import Profile, profile, rows_of_budget
from vocabtailor_gguf.profiling.scripts import DEFAULT_CLASSES
from vocabtailor_gguf.profiling.tasks import TASKS, get_task
from vocabtailor_gguf.store import VocabStore
from vocabtailor_gguf.token_set import TokenSet


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
    parser.add_argument("--language", metavar="CODES", help="word lists of wordfreq, e.g. it,en")
    parser.add_argument("--words", type=_common.positive, default=20_000, metavar="N")
    parser.add_argument("--counts", metavar="FILE", help="add counts of an earlier run")
    parser.add_argument("--save-counts", metavar="FILE", help="save the counts of this run")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad records out")
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N", help="processes")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="NAME.tokens.json")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Profile, write the sets, print what each stage left."""
    task = get_task(
        args.task or ("translation" if args.input_field else "text"),
        input_field=args.input_field,
        output_field=args.output_field,
    )
    if not task.static and not args.language:
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
            skip_bad=args.skip_bad,
            progress=lambda documents, n_bytes: bar(n_bytes, 0),
        )
    if args.save_counts:
        found.counts.save(args.save_counts)
    rows = args.rows
    if args.head_mb is not None:
        with VocabStore(args.model) as store:
            rows = rows_of_budget(store, args.head_mb)
    results: list[dict[str, Any]] = []
    sets = [found.with_rows(rows)] if rows else [found.at_tolerance(t) for t in args.tolerance]
    for chosen in sets:
        path = _name(args.output, chosen, len(sets) > 1)
        chosen.save(path)
        results.append({"path": path, "ids": len(chosen), **chosen.provenance})
    if args.json:
        _common.print_json(results)
        return 0
    _print_stages(found, results)
    return 0


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
