"""Evaluate models on tasks: full vocabulary, exact, tailored, and a vocabulary that was pruned."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.evaluate import DataSet, Options, Progress, evaluate
from vocabtailor_gguf.evaluation.markdown import markdown
from vocabtailor_gguf.evaluation.results import Read, ResultsFile, read_results
from vocabtailor_gguf.evaluation.rows import training_file
from vocabtailor_gguf.evaluation.summary import summarise
from vocabtailor_gguf.evaluation.tasks import EvalTask, built_in_tasks, load_task
from vocabtailor_gguf.evaluation.variants import WAYS, parse_variants


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "-m", "--model", nargs="+", default=[], metavar="CORE",
        help="NAME.core.gguf, or unsplit models",
    )  # fmt: skip
    parser.add_argument(
        "--task", nargs="+", default=[], metavar="TASK",
        help=f"{', '.join(built_in_tasks())}, or FILE.yaml; one for all data or one for each; "
        "variables follow a colon, e.g. translation:from=English,to=Italian",
    )  # fmt: skip
    parser.add_argument("--data", nargs="+", default=[], metavar="FILE", help="rows to test on")
    parser.add_argument(
        "--train", nargs="+", default=[], metavar="FILE",
        help="other rows, one file for each of --data, for examples and token sets "
        "(default: NAME.train.jsonl for NAME.test.jsonl)",
    )  # fmt: skip
    parser.add_argument(
        "--mode", nargs="+", default=list(WAYS), metavar="MODE",
        help=f"{', '.join(WAYS)} (default: all); full is always computed; MODE:SET names one set",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=["0.01", "balanced"], metavar="SET",
        help="sets of tailored and pruned: tolerances, recipes, numbers of rows, FILE.tokens.json, "
        "none (default: 0.01 balanced)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="results, JSON lines; goes on there")
    parser.add_argument(
        "--report", nargs="+", metavar="FILE", help="show files of results, compute nothing"
    )
    parser.add_argument("--limit", type=_common.positive, metavar="N", help="rows of each set")
    parser.add_argument("--shots", type=int, metavar="N", help="examples before each prompt")
    parser.add_argument(
        "--prompts", choices=["auto", "base", "chat"], default="auto",
        help="auto: chat where the model has a chat template",
    )  # fmt: skip
    parser.add_argument(
        "--templates", metavar="FOLDER", help="files that take the place of templates"
    )
    parser.add_argument("-n", "--n-predict", type=_common.positive, metavar="N", help="tokens")
    parser.add_argument("-c", "--ctx-size", type=_common.positive, default=4096, metavar="N")
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N")
    parser.add_argument(
        "--dask", metavar="SCHEDULER", help="answer on a Dask cluster, e.g. tcp://host:8786"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compute what is missing, then print a table for each model and data set, or JSON."""
    if args.report:
        _show(read_results(args.report), as_json=args.json)
        return 0
    if not (args.model and args.task and args.data and args.output):
        raise VocabTailorError("eval: needs -m, --task, --data and -o, or --report")
    sets = _sets(args)
    variants = parse_variants(args.mode, args.set)
    options = Options(
        style=None if args.prompts == "auto" else args.prompts,
        limit=args.limit,
        n_ctx=args.ctx_size,
        n_threads=args.threads,
        scheduler=args.dask,
    )
    models = [_common.find_pair(model, None) for model in args.model]
    with ResultsFile(args.output) as results, _bars() as progress:
        keys = evaluate(models, sets, variants, results, options, progress)
        read = results.read
    asked = Read({key: read.runs[key] for key in keys}, {key: read.of(key) for key in keys})
    _show(asked, as_json=args.json)
    return 0


def _show(read: Read, *, as_json: bool) -> None:
    groups = summarise(read)
    if as_json:
        _common.print_json(groups)
    else:
        print(markdown(groups))


def _sets(args: argparse.Namespace) -> list[DataSet]:
    tasks = [_task(name, args) for name in args.task]
    if len(tasks) == 1:
        tasks *= len(args.data)
    if len(tasks) != len(args.data) or len(args.train) not in (0, len(args.data)):
        raise VocabTailorError("eval: --task and --train: expected one for each of --data")
    train = args.train or [training_file(data) for data in args.data]
    sets = []
    for task, data, rows in zip(tasks, args.data, train, strict=True):
        if task.shots and rows is None:
            raise VocabTailorError(
                f"{data}: examples come from other rows: give --train, or --shots 0"
            )
        sets.append(DataSet(task, data, rows))
    return sets


def _task(name: str, args: argparse.Namespace) -> EvalTask:
    task = load_task(name, templates=None if args.templates is None else Path(args.templates))
    if args.shots is not None and args.shots < 0:
        raise VocabTailorError("--shots: expected 0 or more")
    return task.limited(shots=args.shots, max_tokens=args.n_predict)


@contextmanager
def _bars() -> Iterator[Progress]:
    """Show a bar for each variant, on stderr where that is a terminal."""
    shown: list[tuple[str, Callable[[int, int], None]]] = []
    with ExitStack() as stack:

        def update(what: str, done: int, total: int) -> None:
            if not shown or shown[-1][0] != what:
                stack.close()
                shown.append((what, stack.enter_context(_common.progress_bar(what, unit="rows"))))
            shown[-1][1](done, total)

        yield update
