"""Generate text from a split model; text on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import llama_cpp

from vocabtailor_gguf.cli import _color, _common, _generation, _screen
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.runtime.reports import Stats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _generation.CHOICES
    _generation.add_model(parser)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("-p", "--prompt", help="the prompt (default: what a pipe brings)")
    prompt.add_argument(
        "-f", "--file", metavar="FILE", help="a file that holds the prompt; - for standard input"
    )
    parser.add_argument(
        "-n", "--n-predict", type=int, default=-1, metavar="N", help="tokens (-1: to the context)"
    )
    _generation.add_sampling(parser)
    grammar = parser.add_mutually_exclusive_group()
    grammar.add_argument("--grammar-file", metavar="FILE", help="a GBNF grammar")
    grammar.add_argument("-j", "--json-schema", metavar="SCHEMA", help="a JSON schema to obey")
    _color.add_color(parser)
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Generate and stream."""
    _generation.check_ranges(args)
    prompt = _prompt(args)
    if prompt is None:
        print("vocabtailor run: error: no prompt: give -p, -f or a pipe", file=sys.stderr)
        return 2
    grammar = _grammar(args)
    llm = _generation.load(args, _common.find_files(args))
    try:
        try:
            _generate(llm, prompt, grammar, args)
        except (KeyboardInterrupt, BrokenPipeError):  # it was learned from as far as it came
            _save_learned(llm, args)
            raise
        _save_learned(llm, args)
        return 0
    finally:
        llm.close()


def _save_learned(llm: TailoredLlama, args: argparse.Namespace) -> None:
    if args.learn:
        _color.Notes(args.color).tell(_generation.save_learned(llm, args.learn))


def _prompt(args: argparse.Namespace) -> str | None:
    if args.prompt is not None:
        return _common.utf8("the prompt", args.prompt)
    return _common.read_stdin() if args.file is None else _common.read_text(args.file)


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
    notes = _color.Notes(args.color)
    if llm.mode == "tailored":
        notes.tell(
            f"tailored mode: {len(llm.active_ids):,} of {llm.n_vocab():,} tokens and those of the "
            "prompt can be produced, no others",
            "warning",
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
            print(_screen.shown(step.text, sys.stdout), end="", flush=True)
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
    print(_screen.shown(pieces[-1], sys.stdout))
    stats, memory = llm.stats, llm.memory_report()
    notes.tell(
        f"prompt {took.n_prompt} tokens in {took.prompt_ms:.0f} ms; {took.n_tokens} tokens, "
        f"{took.tokens_per_second:.1f} tokens/s; {stats.head_rows:,} head rows; embedding, head, "
        f"logits {(memory.embedding + memory.head + memory.logits) / 1e6:.1f} MB, "
        f"process {(memory.anon + memory.file) / 1e6:.0f} MB"
    )
    if llm.mode == "exact":
        notes.tell(
            f"exact: {stats.drafted} tokens drafted, {stats.rejected} rejected, "
            f"{stats.ms_verify:.0f} ms of verification; {_passes(stats)}"
        )
    if args.audit:
        notes.tell(_audit(llm))


def _passes(stats: Stats) -> str:
    if stats.together == 1:
        return f"no drafts from the text: {stats.why_alone}"
    return (
        f"{stats.agreed} of {stats.ahead} guesses of text or grammar were right, passes of up to "
        f"{stats.together} tokens"
    )


def _audit(llm: TailoredLlama) -> str:
    found = llm.audit_report()
    wanted = sorted(found.tokens.items(), key=lambda item: -item[1])[:10]
    shown = ", ".join(f"{llm.detokenize([t]).decode('utf-8', 'replace')!r} {n}x" for t, n in wanted)
    return (
        f"audit: {found.outside} of {found.audited} choices of the whole vocabulary "
        f"({found.rate:.1%}) lay outside the set" + (f": {shown}" if shown else "")
    )


def _grammar(args: argparse.Namespace) -> llama_cpp.LlamaGrammar | None:
    text = None if args.grammar_file is None else _common.read_text(args.grammar_file)
    try:
        if text is not None:
            return llama_cpp.LlamaGrammar.from_string(text, verbose=False)
        if args.json_schema is not None:
            schema = _common.utf8("--json-schema", args.json_schema)
            return llama_cpp.LlamaGrammar.from_json_schema(schema, verbose=False)
    except (ValueError, KeyError, TypeError) as e:
        raise VocabTailorError(f"the grammar cannot be read: {e}") from e
    return None
