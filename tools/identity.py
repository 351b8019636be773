"""Count the texts of exact mode that are stock llama.cpp's, token for token.

    python tools/identity.py run MODEL.gguf NAME.core.gguf prompts.jsonl -o found.jsonl
    python tools/identity.py count found.jsonl

Prompts are JSON lines with a field ``prompt`` and, if there is one, ``task``. Both models are
loaded in one process with the same threads, context and flash attention, and take turns at each
prompt with the same seed. A line is written for each text as soon as it is known, so a long run can
be stopped, and counted, at any time. The exit code of ``count``, and of ``run``, is 1 where a text
differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.bench.loading import SAMPLERS
from vocabtailor_gguf.bench.markdown import markdown_table
from vocabtailor_gguf.bench.tables import Table

# "default": what llama_cpp.Llama.create_completion does where nothing is asked for
CHAINS: dict[str, dict[str, Any]] = {
    **SAMPLERS,
    "default": {"temp": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    "penalty": {"temp": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.1},
}
_COUNTED = ("drafted", "rejected", "ahead", "agreed", "passes")


def read(path: Path, skip: int, limit: int | None) -> list[tuple[str, str]]:
    """Return (task, prompt) of JSON lines."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [json.loads(line) for line in lines[skip : None if limit is None else skip + limit]]
    return [(str(row.get("task", "")), str(row["prompt"])) for row in rows]


def generate(
    llm: llama_cpp.Llama, ids: list[int], n: int, *, seed: int, past_end: bool, **chain: Any
) -> tuple[list[int], float]:
    """Return the tokens that follow a prompt, and seconds after the first of them."""
    llm.reset()
    llm.set_seed(seed)
    tokens: list[int] = []
    first = time.perf_counter()
    with contextlib.closing(llm.generate(ids, **chain)) as stream:
        for token in stream:
            tokens.append(token)
            if len(tokens) == 1:
                first = time.perf_counter()
            if len(tokens) == n or (token == llm.token_eos() and not past_end):
                break
    return tokens, time.perf_counter() - first


def compare(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what was found for each prompt and sampler."""
    common = {
        **{"n_ctx": args.ctx_size, "n_threads": args.threads, "n_threads_batch": args.threads},
        **{"n_batch": args.batch_size, "flash_attn": args.flash_attn, "verbose": False},
    }
    with contextlib.ExitStack() as models:
        stock = models.enter_context(contextlib.closing(llama_cpp.Llama(args.model, **common)))
        ours = models.enter_context(
            contextlib.closing(
                TailoredLlama(
                    args.core,
                    token_set=args.token_set,
                    mode=args.mode,
                    drafts=args.drafts,
                    draft_max=args.draft_max,
                    **common,
                )
            )
        )
        for i, (task, prompt) in enumerate(read(args.prompts, args.skip, args.limit), args.skip):
            # what does not fit is cut
            ids = stock.tokenize(prompt.encode("utf-8"))[: args.ctx_size - args.n_predict]
            asked = [args.samplers[i % len(args.samplers)]] if args.alternate else args.samplers
            for sampler in asked:
                how = {**CHAINS[sampler], "seed": args.seed + i, "past_end": args.ignore_eos}
                texts, seconds = {}, {}
                before = ours.stats
                for llm in (stock, ours) if i % 2 else (ours, stock):
                    texts[llm], seconds[llm] = generate(llm, ids, args.n_predict, **how)
                after = ours.stats
                counted = {name: getattr(after, name) - getattr(before, name) for name in _COUNTED}
                counted["passes"] -= -(-len(ids) // args.batch_size)  # the prompt's
                yield {
                    **{"row": i, "task": task, "sampler": sampler, "n_prompt": len(ids)},
                    **{"n": len(texts[ours]), "together": after.together, **counted},
                    "seconds": round(seconds[ours], 4),
                    "seconds_stock": round(seconds[stock], 4),
                    "first_other": _first_other(texts[stock], texts[ours]),
                }


def _first_other(a: list[int], b: list[int]) -> int | None:
    """Return where two texts differ first, None where they do not."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return None if len(a) == len(b) else min(len(a), len(b))


def summary(rows: Iterable[dict[str, Any]]) -> str:
    """Return a table of texts, by sampler and task, and all of them."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        for key in ((row["sampler"], row["task"] or "-"), (row["sampler"], "all"), ("all", "all")):
            groups.setdefault(key, []).append(row)
    head = "sampler,task,texts,stock's,tokens,before one differs,ahead,agreed,tokens/pass,x stock"
    table = []
    for (sampler, task), found in sorted(groups.items(), key=_order):
        n = sum(r["n"] for r in found)
        same = sum(r["first_other"] is None for r in found)
        held = sum(r["n"] if r["first_other"] is None else r["first_other"] for r in found)
        ratios = [r["seconds_stock"] / r["seconds"] for r in found if r["n"] > 1 and r["seconds"]]
        table.append(
            [sampler, task, str(len(found)), str(same), str(n), str(held)]
            + [str(sum(r[name] for r in found)) for name in ("ahead", "agreed")]
            + [f"{n / max(1, sum(r['passes'] for r in found)):.2f}"]
            + [f"{statistics.median(ratios):.2f}" if ratios else "-"]
        )
    return markdown_table(Table("", "", head.split(","), table, n_names=2))


def _order(item: tuple[tuple[str, str], Any]) -> tuple[bool, str, bool, str]:
    (sampler, task), _ = item
    return sampler == "all", sampler, task == "all", task


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare, write each line as it is found, and return all."""
    rows = []
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(args.output.open("a", encoding="utf-8")) if args.output else None
        for row in compare(args):
            rows.append(row)
            if out is not None:
                print(json.dumps(row), file=out, flush=True)
            if row["first_other"] is not None:
                print(f"row {row['row']}, {row['sampler']}: token {row['first_other']} differs")
    return rows


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="compare texts")
    one.add_argument("model", help="the unsplit model")
    one.add_argument("core", help="NAME.core.gguf of the same model")
    one.add_argument("prompts", type=Path, help="JSON lines with a field prompt")
    one.add_argument("-o", "--output", type=Path, help="results are appended to it as JSON lines")
    one.add_argument("-n", "--n-predict", type=int, default=128, help="tokens of a text")
    one.add_argument("-c", "--ctx-size", type=int, default=2048)
    one.add_argument("-b", "--batch-size", type=int, default=512)
    one.add_argument("-t", "--threads", type=int, default=2)
    one.add_argument("-s", "--seed", type=int, default=0, help="of the first prompt; then one more")
    one.add_argument("--flash-attn", action="store_true", help="flash attention in both models")
    one.add_argument("--samplers", nargs="+", choices=CHAINS, default=["greedy", "temp0.8"])
    one.add_argument("--alternate", action="store_true", help="one sampler a prompt, in turn")
    one.add_argument("--ignore-eos", action="store_true", help="go on after the end of a text")
    one.add_argument("--mode", choices=["exact", "full", "tailored"], default="exact")
    one.add_argument("--drafts", choices=["auto", "active", "text", "none"], default="auto")
    one.add_argument("--draft-max", type=int, help="tokens of a pass, whatever bits they have")
    one.add_argument("--token-set", metavar="FILE", help="NAME.tokens.json")
    one.add_argument("--skip", type=int, default=0, help="prompts to pass over")
    one.add_argument("--limit", type=int, help="prompts at most")
    other = commands.add_parser("count", help="count what runs have found so far")
    other.add_argument("results", type=Path, nargs="+")
    args = parser.parse_args()
    if args.command == "run":
        rows = run(args)
    else:
        lines = [line for p in args.results for line in p.read_text("utf-8").splitlines()]
        rows = [json.loads(line) for line in lines]
    print(summary(rows))
    return int(any(row["first_other"] is not None for row in rows))


if __name__ == "__main__":
    sys.exit(main())
