"""Ask a server from many clients at once, and tell requests, errors, and memory before and after.

    python tools/stress_server.py MODEL --clients 16 --seconds 300

A client in turn streams a chat, asks for a text at once, leaves a stream, wants two choices with
log-probabilities, embeds, and asks for something wrong. A greedy text must be the same at the end
as at the beginning. JSON on stdout; exit code 1 where there was an error.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import threading
import time
from typing import Any

import httpx
from server_clients import Server, quantile, started, stream

_WORDS = "river city stone light water bread wine road night garden winter letter".split()
_WARM_UP = 20  # requests of each client before the memory is measured first


class Client(threading.Thread):
    """Asks until it is told to stop.

    Args:
        url: Of the server.
        seed: Of what it asks.
        n_tokens: Tokens of an answer at most.

    Attributes:
        counts: Requests by kind.
        errors: What went wrong, by its text.
        firsts: Seconds to the first text of streams.
    """

    def __init__(self, url: str, seed: int, n_tokens: int) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.firsts: list[float] = []
        self.stopped = threading.Event()
        self._random = random.Random(seed)
        self._n_tokens = n_tokens
        self._http = httpx.Client(base_url=f"{url}/v1", timeout=300)

    def run(self) -> None:
        """Ask in turn for everything."""
        kinds = (self._chat, self._whole, self._left, self._choices, self._embedding, self._wrong)
        with self._http:
            while not self.stopped.is_set():
                kind = self._random.choice(kinds)
                name = kind.__name__.strip("_")
                try:
                    kind()
                    self.counts[name] += 1
                except (httpx.HTTPError, ValueError) as e:
                    self.errors[f"{name}: {type(e).__name__}: {e}"[:300]] += 1

    def _body(self, **more: Any) -> dict[str, Any]:
        pick = self._random
        return {
            "max_tokens": pick.randint(1, self._n_tokens),
            "temperature": pick.choice((0.0, 0.8)),
            "seed": pick.randrange(2**32),
            **more,
        }

    def _prompt(self) -> str:
        words = self._random.choices(_WORDS, k=self._random.randint(1, 40))
        return f"A text about {', '.join(words)}: "

    def _post(self, path: str, body: dict[str, Any], status: int = 200) -> Any:
        answer = self._http.post(path, json=body)
        if answer.status_code != status:
            raise ValueError(f"{answer.status_code} {answer.text}")
        return answer.json()

    def _chat(self) -> None:
        messages = [{"role": "user", "content": self._prompt()}]
        self.firsts.append(
            stream(self._http, "chat/completions", self._body(messages=messages)).first
        )

    def _whole(self) -> None:
        self._post("completions", self._body(prompt=[self._prompt(), self._prompt()]))

    def _left(self) -> None:
        stream(self._http, "completions", self._body(prompt=self._prompt()), leave=3)

    def _choices(self) -> None:
        out = self._post("completions", self._body(prompt=self._prompt(), n=2, logprobs=3))
        if len(out["choices"]) != 2:
            raise ValueError(f"{len(out['choices'])} choices, expected 2")

    def _embedding(self) -> None:
        self._post("embeddings", {"input": self._prompt()})

    def _wrong(self) -> None:
        self._post("completions", {"prompt": self._prompt(), "temperature": -1}, 400)


def _probe(server: Server) -> str:
    body = {"prompt": "The capital of Italy is", "max_tokens": 24, "temperature": 0,
            "cache_prompt": False}  # fmt: skip
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=300).json()
    return str(answer["choices"][0]["text"])


def _stress(server: Server, n_clients: int, seconds: float, n_tokens: int) -> dict[str, Any]:
    expected = _probe(server)
    clients = [Client(server.url, seed, n_tokens) for seed in range(n_clients)]
    for client in clients:
        client.start()
    began = time.perf_counter()
    while sum(sum(c.counts.values()) for c in clients) < _WARM_UP * n_clients:
        if time.perf_counter() - began > seconds / 4:
            break
        time.sleep(0.1)
    before, warm = server.memory(), time.perf_counter() - began
    time.sleep(max(0.0, seconds - warm))
    for client in clients:
        client.stopped.set()
    for client in clients:
        client.join()
    took = time.perf_counter() - began
    counts: collections.Counter[str] = collections.Counter()
    errors: collections.Counter[str] = collections.Counter()
    for client in clients:
        counts += client.counts
        errors += client.errors
    if _probe(server) != expected:
        errors["the greedy text has changed"] += 1
    firsts = [first for client in clients for first in client.firsts]
    return {
        "clients": n_clients,
        "seconds": round(took, 1),
        "requests": dict(sorted(counts.items())),
        "requests_per_second": round(sum(counts.values()) / took, 2),
        "errors": dict(errors),
        "first_text_seconds": {f"p{int(100 * q)}": round(quantile(firsts, q), 3)
                               for q in (0.5, 0.95)},
        "measured_first_after_seconds": round(warm, 1),
        "memory_before": before,
        "memory_after": server.memory(),
    }  # fmt: skip


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="NAME.core.gguf, or an unsplit model")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer at most")
    parser.add_argument("--threads", type=int, default=1, help="of a slot")
    args = parser.parse_args()
    options = ["-m", args.model, "--slots", str(args.slots), "-t", str(args.threads), "-c", "1024"]
    with started("vocabtailor_gguf serve", *options, "--queue", str(2 * args.clients)) as server:
        found = _stress(server, args.clients, args.seconds, args.tokens)
    print(json.dumps({"slots": args.slots, "threads": args.threads, **found}, indent=2))
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
