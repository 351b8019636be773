"""What commands that generate text share: a model, a set, a mode, a sampler chain."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.sets.token_set import TokenSet

CHOICES = """\
which mode:
  exact      stock llama.cpp's own text, token for token, faster: take it where in doubt.
  tailored   only tokens of the set and of the prompt can be produced: the least memory and the
             most speed, for one task whose set was made from texts like those it will write.
             --audit 0.05 tells how often the whole vocabulary would have chosen otherwise.
  full       every row of the LM head at every token, as stock does; to compare with.

which token set:
  none            exact mode begins with the tokenizer's frequent tokens and finds what they lack;
                  tailored mode would have little more than the prompt's own words
  --learn FILE    grows by what it lacked, from run to run: the easiest way to a set
  profiled        vocabtailor profile --data train.jsonl ... -o my.tokens.json: from a task's texts;
                  what tailored mode wants
  word lists      vocabtailor profile --language it,en --words 20000 ... -o it.tokens.json: where
                  there are no texts yet
"""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is loaded, and how."""
    _common.add_core(parser, or_unsplit=True)
    parser.add_argument(
        "-c", "--ctx-size", type=int, default=2048, metavar="N",
        help="tokens of the context; 0: as many as the model was trained with (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "-t", "--threads", type=_common.positive, metavar="N",
        help="threads (default: half of the machine's; for prompts all of them)",
    )  # fmt: skip
    parser.add_argument("--token-set", metavar="FILE", help="NAME.tokens.json; see below")
    parser.add_argument(
        "--mode", choices=["exact", "tailored", "full"], default="exact",
        help="exact: stock's very tokens (default); tailored: only tokens of the set can be "
        "produced; full: every row of the head at every token; see below",
    )  # fmt: skip
    _common.add_drafts(parser)
    _common.add_draft_max(parser)
    parser.add_argument(
        "--no-prompt-expansion", dest="prompt_expansion", action="store_false",
        help="do not add other forms of the prompt's words to the active set",
    )  # fmt: skip
    parser.add_argument(
        "--learn", metavar="FILE", help="a token set that grows by what it lacked; made if missing"
    )
    parser.add_argument(
        "--audit", type=float, default=0.0, metavar="RATE",
        help="tailored mode: check this share of steps against the whole vocabulary (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--whole-head", choices=["mapped", "memory", "streamed"], default="mapped",
        help="where the whole LM head lies in exact mode and for audits; streamed: nowhere, for "
        "less memory and speed (default: %(default)s)",
    )  # fmt: skip


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sampler chain."""
    for name, kind, default, metavar, told in (
        ("--temp", float, 0.8, "T", "temperature; 0: greedy"),
        ("--top-k", int, 40, "K", "choose among the K likeliest tokens"),
        ("--top-p", float, 0.95, "P", "and of these among the fewest whose probabilities reach P"),
        ("--min-p", float, 0.05, "P", "and among those at least P times as likely as the best"),
        ("--seed", int, -1, "S", "of the random choices; -1: another one each time"),
    ):
        parser.add_argument(
            name, type=kind, default=default, metavar=metavar,
            help=f"{told} (default: %(default)s)",
        )  # fmt: skip


def check_ranges(args: argparse.Namespace) -> None:
    """Check the values of both.

    Raises:
        VocabTailorError: One is out of its range.
    """
    limits = {"temp": (0, 100), "top_p": (0, 1), "min_p": (0, 1), "audit": (0, 1)}
    for name, (low, high) in limits.items():
        if not low <= getattr(args, name) <= high:
            raise VocabTailorError(f"--{name.replace('_', '-')}: expected {low} to {high}")
    if args.audit and args.mode != "tailored":
        raise VocabTailorError("--audit: goes with --mode tailored")
    if not 0 <= args.ctx_size < 2**31 or not -(2**31) <= args.top_k < 2**31:
        raise VocabTailorError("-c or --top-k: out of range")


def load(args: argparse.Namespace, files: tuple[str, str | None], **changed: Any) -> TailoredLlama:
    """Load a model as the options say, but for what is `changed`."""
    core, vocab = files
    options: dict[str, Any] = {
        "vocab_path": vocab,
        "mode": args.mode,
        "drafts": args.drafts,
        "draft_max": args.draft_max,
        "whole_head": args.whole_head,
        "audit": args.audit,
        "prompt_expansion": args.prompt_expansion,
        "n_ctx": args.ctx_size,
        "n_threads": args.threads,
        "n_threads_batch": args.threads,
        "seed": args.seed % 2**32,
        "verbose": False,
        **changed,
    }
    if "token_set" not in options:
        options["token_set"] = first_set(args)
    return TailoredLlama(core, **options)


def first_set(args: argparse.Namespace) -> TokenSet | None:
    """Return the set to begin with: the learned one, joined by that of --token-set."""
    if args.learn and args.mode != "exact" and not args.audit:
        raise VocabTailorError("--learn: only exact mode and --audit find tokens to learn")
    if args.token_set and not Path(args.token_set).exists():
        raise BadFileError(f"{args.token_set}: no such file")
    found = TokenSet.load(args.learn) if args.learn and Path(args.learn).exists() else None
    return joined(found, TokenSet.load(args.token_set) if args.token_set else None)


def joined(learned: TokenSet | None, given: TokenSet | None) -> TokenSet | None:
    """Return a learned set that is joined by another one, or whichever there is."""
    if learned is None or given is None:
        return learned or given
    both = learned.union(given)
    return TokenSet(both.ids, both.tokenizer, learned.provenance)


def learned_set(llm: TailoredLlama) -> TokenSet | None:
    """Return a model's set with what it learned; None where there is neither."""
    try:
        return llm.learned_token_set()
    except VocabTailorError:
        return None


def save_learned(llm: TailoredLlama, path: str) -> str:
    """Save what a model's set learned, and return a line that tells of it."""
    try:
        found = llm.learned_token_set()
    except VocabTailorError as e:
        return f"{path}: {e}"
    found.save(path)
    n = len(found.provenance["learned"])
    return f"{path}: {len(found):,} tokens, {n:,} of them learned"
