"""Serve a model over HTTP, as OpenAI's interface has it; a page to try it is at /."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.runtime.owner import Mode
from vocabtailor_gguf.sets.kept import learned_file
from vocabtailor_gguf.sets.token_set import TokenSet

MODES: tuple[Mode, ...] = get_args(Mode)
_PATIENCE = 10  # seconds for the last token of a slot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _common.add_core(parser, or_unsplit=True)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8080, help="default: 8080; 0: a free one")
    parser.add_argument(
        "--api-key", metavar="KEY", default=os.environ.get("LLAMA_API_KEY") or None,
        help="what clients must show (default: LLAMA_API_KEY of the environment, else nothing)",
    )  # fmt: skip
    parser.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN",
        help="let pages of this origin ask; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--max-body", type=_common.positive, default=4 << 20, metavar="BYTES",
        help="size of a request (default: 4 MiB)",
    )  # fmt: skip
    parser.add_argument(
        "--slots", type=_slots, default=1, metavar="N",
        help="texts that are generated at the same time, each with its own context (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--queue", type=_queue, default=32, metavar="N",
        help="requests that may wait for a slot; more get a 429 (default: 32)",
    )  # fmt: skip
    parser.add_argument(
        "--drain", type=_common.positive, default=30, metavar="SECONDS",
        help="on SIGTERM, time for what is being generated (default: 30)",
    )  # fmt: skip
    parser.add_argument("-c", "--ctx-size", type=_ctx, default=2048, metavar="N", help="of a slot")
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N", help="of a slot")
    parser.add_argument("--token-set", metavar="FILE", help="NAME.tokens.json")
    parser.add_argument(
        "--alias", action="append", default=[], metavar="NAME[=FILE][,MODE]",
        help="another name of the model, with a token set and a mode of its own; may be repeated",
    )  # fmt: skip
    parser.add_argument("--mode", choices=MODES, default="exact")
    _common.add_drafts(parser)
    _common.add_draft_max(parser)
    parser.add_argument(
        "--no-learn", action="store_true",
        help="exact mode: do not draft with what earlier requests lacked, nor keep it in the cache "
        "for the next start",
    )  # fmt: skip
    parser.add_argument(
        "--audit", type=_rate, default=0.0, metavar="RATE",
        help="tailored mode: check this share of steps against the whole vocabulary",
    )  # fmt: skip
    parser.add_argument(
        "--whole-head", choices=["mapped", "memory", "streamed"], default="mapped",
        help="where the whole LM head lies in exact mode and for audits",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    try:
        from vocabtailor_gguf.serve.app import create_app
        from vocabtailor_gguf.serve.limits import hosts_of
        from vocabtailor_gguf.serve.listen import Listener
        from vocabtailor_gguf.serve.load import load_pool
        from vocabtailor_gguf.serve.preset import DEFAULT_SET, Preset
        from vocabtailor_gguf.serve.server import Settings
    except ImportError as e:
        raise VocabTailorError(f"{e.name} is missing: pip install 'vocabtailor_gguf[serve]'") from e

    core, vocab = _common.find_files(args)
    aliases = [_alias(text) for text in args.alias]
    sets = {name: _token_set(file) for name, file, _ in aliases if file}
    named = args.model or args.hf_repo.partition(":")[0]
    own = Path(named).name.removesuffix(".gguf").removesuffix(".core")
    models = {}
    for name, file, mode in [(own, "", args.mode), *aliases]:
        if name in models or (file and name == DEFAULT_SET):
            raise VocabTailorError(f"--alias {name}: the name is taken")
        has = mode or args.mode
        audit = args.audit if has == "tailored" else 0.0
        models[name] = Preset(name if file else DEFAULT_SET, has, audit)
    pool = load_pool(
        core,
        vocab_path=vocab,
        token_set=None if args.token_set is None else _token_set(args.token_set),
        sets=sets,
        slots=args.slots,
        queue=args.queue,
        preset=models[own],
        drafts=args.drafts,
        draft_max=args.draft_max,
        learn=not args.no_learn,
        learned=learned_file(core),
        whole_head=args.whole_head,
        n_ctx=args.ctx_size,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        verbose=False,
    )
    try:
        settings = Settings(
            models=models,
            sets=frozenset({DEFAULT_SET, *sets}),
            api_key=args.api_key,
            cors=tuple(args.cors),
            max_body=args.max_body,
            hosts=hosts_of(args.host),
        )
        # uvicorn drains at the first signal and raises it again when it is done; that is the end
        # this command wants, and a success
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        Listener(
            create_app(pool, settings),
            host=args.host,
            port=args.port,
            drain=args.drain,
            ready=lambda url: print(
                f"{own}: mode {args.mode}, {args.slots} slots, {url}", file=sys.stderr, flush=True
            ),
        ).run()
        return 0
    finally:
        if not pool.close(_PATIENCE):
            print("vocabtailor: a slot did not end; it is left", file=sys.stderr, flush=True)
            os._exit(1)  # its thread is inside llama.cpp, where nothing can stop it


def _port(text: str) -> int:
    return _whole(text, 0, 65535)


def _slots(text: str) -> int:
    return _whole(text, 1, 256)


def _queue(text: str) -> int:
    return _whole(text, 0, 2**31 - 1)


def _ctx(text: str) -> int:
    return _whole(text, 0, 2**31 - 1)


def _whole(text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {low} to {high}")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 to 1")
    return value


def _alias(text: str) -> tuple[str, str, Mode | None]:
    """Return the name, the file and the mode of an alias, which may have no file and no mode."""
    rest, comma, last = text.rpartition(",")
    mode = last if comma and last in MODES else None
    name, _, file = (text if mode is None else rest).partition("=")
    if not name or "," in name:
        raise VocabTailorError(
            f"--alias {text!r}: expected NAME, NAME=FILE, and perhaps a mode: ,{'|'.join(MODES)}"
        )
    return name, file, mode


def _token_set(path: str) -> TokenSet:
    if not Path(path).exists():
        raise BadFileError(f"{path}: no such file")
    return TokenSet.load(path)
