"""Generate text from a split model; text on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.sets.token_set import TokenSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _common.add_core(parser, or_unsplit=True)
    parser.add_argument(
        "--here", action="store_true", help="keep the split of an unsplit model beside it"
    )
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("-p", "--prompt", help="the prompt")
    prompt.add_argument("-f", "--file", metavar="FILE", help="a file that holds the prompt")
    parser.add_argument(
        "-n", "--n-predict", type=int, default=-1, metavar="N", help="tokens (-1: to the context)"
    )
    parser.add_argument(
        "-c", "--ctx-size", type=int, default=2048, metavar="N", help="0: the model's"
    )
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N")
    parser.add_argument("--token-set", metavar="FILE", help="NAME.tokens.json")
    parser.add_argument(
        "--mode", choices=["exact", "tailored", "full"], default="exact",
        help="exact: stock's very tokens (default); tailored: only tokens of the set can be "
        "produced; full: every row of the head at every token",
    )  # fmt: skip
    parser.add_argument(
        "--no-prompt-expansion",
        dest="prompt_expansion",
        action="store_false",
        help="do not add other forms of the prompt's words to the active set",
    )
    parser.add_argument(
        "--learn",
        metavar="FILE",
        help="a token set that grows by what it lacked",
    )
    parser.add_argument(
        "--audit",
        type=float,
        default=0.0,
        metavar="RATE",
        help="tailored mode: check this share of steps against the whole vocabulary",
    )
    parser.add_argument(
        "--whole-head", choices=["mapped", "memory", "streamed"], default="mapped",
        help="where the whole LM head lies in exact mode and for audits",
    )  # fmt: skip
    parser.add_argument("--temp", type=float, default=0.8, metavar="T", help="0: greedy")
    parser.add_argument("--top-k", type=int, default=40, metavar="K")
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P")
    parser.add_argument("--min-p", type=float, default=0.05, metavar="P")
    parser.add_argument("--seed", type=int, default=-1, metavar="S", help="-1: random")
    grammar = parser.add_mutually_exclusive_group()
    grammar.add_argument("--grammar-file", metavar="FILE", help="a GBNF grammar")
    grammar.add_argument("-j", "--json-schema", metavar="SCHEMA", help="a JSON schema to obey")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Generate and stream."""
    _check_ranges(args)
    prompt = args.prompt if args.file is None else _common.read_text(args.file)
    grammar = _grammar(args)
    core, vocab = _common.find_pair(args.model, args.vocab, here=args.here)
    llm = TailoredLlama(
        core,
        vocab_path=vocab,
        token_set=_token_set(args),
        mode=args.mode,
        whole_head=args.whole_head,
        audit=args.audit,
        prompt_expansion=args.prompt_expansion,
        n_ctx=args.ctx_size,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        seed=args.seed % 2**32,
        verbose=False,
    )
    try:
        _generate(llm, prompt, grammar, args)
        if args.learn:
            _save_learned(llm, args.learn)
        return 0
    finally:
        llm.close()


def _token_set(args: argparse.Namespace) -> TokenSet | None:
    """Return the set to begin with: the learned one, joined by that of --token-set."""
    if args.learn and args.mode != "exact" and not args.audit:
        raise VocabTailorError("--learn: only exact mode and --audit find tokens to learn")
    sets = [TokenSet.load(f) for f in (args.learn, args.token_set) if f and Path(f).exists()]
    if args.token_set and not Path(args.token_set).exists():
        raise BadFileError(f"{args.token_set}: no such file")
    if len(sets) < 2:
        return sets[0] if sets else None
    both = sets[0].union(sets[1])
    return TokenSet(both.ids, both.tokenizer, sets[0].provenance)


def _save_learned(llm: TailoredLlama, path: str) -> None:
    try:
        found = llm.learned_token_set()
    except VocabTailorError as e:
        print(f"{path}: {e}", file=sys.stderr)
        return
    found.save(path)
    n = len(found.provenance["learned"])
    print(f"{path}: {len(found):,} tokens, {n:,} of them learned", file=sys.stderr)


def _generate(llm: TailoredLlama, prompt: str, grammar: Any, args: argparse.Namespace) -> None:
    add_bos = bool(llm._model.add_bos_token())
    tokens = llm.tokenize(prompt.encode("utf-8"), add_bos=add_bos, special=True)
    if not tokens:
        tokens = [llm.token_bos()]
    room = llm.n_ctx() - len(tokens)
    if room < 1:
        raise VocabTailorError(
            f"the prompt has {len(tokens)} tokens, the context {llm.n_ctx()}; raise -c"
        )
    limit = room if args.n_predict < 0 else min(args.n_predict, room)
    if llm.mode == "tailored":
        print(
            f"tailored mode: {len(llm.active_ids):,} of {llm.n_vocab():,} tokens and those of the "
            "prompt can be produced, no others",
            file=sys.stderr,
        )
    ids: list[int] = []
    pieces: list[str] = []
    steps = llm.stream(
        tokens, max_tokens=limit, temp=args.temp, top_k=args.top_k, top_p=args.top_p,
        min_p=args.min_p, grammar=grammar,
    )  # fmt: skip
    for step in steps:
        ids.append(step.token)
        pieces.append(step.text)
        if not args.json:
            print(step.text, end="", flush=True)
    pieces.append(steps.rest)
    took = steps.timings
    if args.json:
        _common.print_json(
            {
                "text": "".join(pieces),
                "ids": ids,
                "prompt_tokens": len(tokens),
                "mode": llm.mode,
                "tokens_per_second": took.tokens_per_second,
                "stats": dict(llm.stats),
                "memory": dict(llm.memory_report()),
                "audit": dict(llm.audit_report()),
            }
        )
        return
    print(pieces[-1])
    stats, memory = llm.stats, llm.memory_report()
    print(
        f"prompt {took.n_prompt} tokens in {took.prompt_ms:.0f} ms; {took.n_tokens} tokens, "
        f"{took.tokens_per_second:.1f} tokens/s; {stats.head_rows:,} head rows; embedding, head, "
        f"logits {(memory.embedding + memory.head + memory.logits) / 1e6:.1f} MB, "
        f"process {(memory.anon + memory.file) / 1e6:.0f} MB",
        file=sys.stderr,
    )
    if llm.mode == "exact":
        print(
            f"exact: {stats.drafted} tokens drafted, {stats.rejected} rejected, "
            f"{stats.ms_verify:.0f} ms of verification",
            file=sys.stderr,
        )
    if args.audit:
        _print_audit(llm)


def _print_audit(llm: TailoredLlama) -> None:
    found = llm.audit_report()
    wanted = sorted(found.tokens.items(), key=lambda item: -item[1])[:10]
    shown = ", ".join(f"{llm.detokenize([t]).decode('utf-8', 'replace')!r} {n}x" for t, n in wanted)
    print(
        f"audit: {found.outside} of {found.audited} choices of the whole vocabulary "
        f"({found.rate:.1%}) lay outside the set" + (f": {shown}" if shown else ""),
        file=sys.stderr,
    )


def _check_ranges(args: argparse.Namespace) -> None:
    limits = {"temp": (0, 100), "top_p": (0, 1), "min_p": (0, 1), "audit": (0, 1)}
    for name, (low, high) in limits.items():
        if not low <= getattr(args, name) <= high:
            raise VocabTailorError(f"--{name.replace('_', '-')}: expected {low} to {high}")
    if not 0 <= args.ctx_size < 2**31 or not -(2**31) <= args.top_k < 2**31:
        raise VocabTailorError("-c or --top-k: out of range")


def _grammar(args: argparse.Namespace) -> llama_cpp.LlamaGrammar | None:
    text = None if args.grammar_file is None else _common.read_text(args.grammar_file)
    try:
        if text is not None:
            return llama_cpp.LlamaGrammar.from_string(text, verbose=False)
        if args.json_schema is not None:
            return llama_cpp.LlamaGrammar.from_json_schema(args.json_schema, verbose=False)
    except (ValueError, KeyError, TypeError) as e:
        raise VocabTailorError(f"the grammar cannot be read: {e}") from e
    return None
