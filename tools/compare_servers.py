"""Compare the throughput and time to first token of two servers on the same model.

    python tools/compare_servers.py MODEL.gguf NAME.core.gguf --clients 1 4

``vocabtailor serve`` with the split model against llama-cpp-python's own server with the unsplit
one: the same prompts, greedy, each answer as long, each server alone and warm. Several slots share
the threads. JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from server_clients import Server, quantile, started, stream

_TOPICS = "rivers cities bread music winter trains gardens islands bridges letters".split()
# the same for both: what either server has as its own default
_SAMPLING = {"temperature": 0.0, "repeat_penalty": 1.0, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


def _round(
    server: Server, number: int, n_clients: int, n_requests: int, n_tokens: int
) -> dict[str, float]:
    """Let each client ask for some streams, one after another; no prompt begins as another does."""

    def ask(i: int) -> list[Any]:
        with httpx.Client(base_url=f"{server.url}/v1", timeout=600) as client:
            found = []
            for j in range(n_requests):
                topic = _TOPICS[(i * n_requests + j) % len(_TOPICS)]
                prompt = f"{number}.{n_clients}.{i}.{j}: a short text about {topic}, for children:"
                body = {"prompt": prompt, "max_tokens": n_tokens, **_SAMPLING}
                found.append(stream(client, "completions", body))
            return found

    began = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as threads:
        found = [f for each in threads.map(ask, range(n_clients)) for f in each]
    seconds = time.perf_counter() - began
    return {
        "chunks_per_second": sum(f.n_chunks for f in found) / seconds,
        "first_text_p50": quantile([f.first for f in found], 0.5),
        "first_text_worst": max(f.first for f in found),
    }


def _measure(server: Server, args: argparse.Namespace) -> dict[str, Any]:
    _round(server, 0, 1, 1, args.tokens)  # warm
    out: dict[str, Any] = {}
    for n in args.clients:
        rounds = [
            _round(server, number, n, args.requests, args.tokens)
            for number in range(1, args.rounds + 1)
        ]
        out[f"{n} clients"] = {
            name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]
        }
    return {**out, "memory": server.memory()}


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the unsplit model")
    parser.add_argument("core", help="NAME.core.gguf of the same model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--requests", type=int, default=4, help="of a client in a round")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wait", choices=["active", "passive"], help="OMP_WAIT_POLICY")
    parser.add_argument("--mode", choices=["exact", "tailored", "full"], default="exact")
    parser.add_argument("--token-set", metavar="FILE", help="NAME.tokens.json")
    args = parser.parse_args()
    n_slots, n_ctx = max(args.clients), "1024"
    ours = ["-m", args.core, "--mode", args.mode, "-c", n_ctx]
    ours += ["--token-set", args.token_set] if args.token_set else []
    theirs = ["--model", args.model, "--n_ctx", n_ctx, "--n_threads", str(args.threads),
              "--n_threads_batch", str(args.threads), "--interrupt_requests", "false"]  # fmt: skip
    out = {}
    with started("llama_cpp.server", *theirs, wait=args.wait) as server:
        out["llama_cpp.server"] = _measure(server, args)
    for slots in sorted({1, n_slots}):
        share = ["-t", str(max(1, args.threads // slots)), "--slots", str(slots)]
        with started("vocabtailor_gguf serve", *ours, *share, wait=args.wait) as server:
            out[f"vocabtailor serve, {slots} slots"] = _measure(server, args)
    print(
        json.dumps({"threads": args.threads, "wait": args.wait, "mode": args.mode, **out}, indent=2)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
