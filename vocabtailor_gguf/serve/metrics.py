"""Counters for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.serve.pool import Pool
from vocabtailor_gguf.serve.work import Summary

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SPEEDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """What a server counts; each has a registry of its own.

    Args:
        pool: Whose queue is told.
    """

    def __init__(self, pool: Pool) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "vocabtailor_requests", "Answers", ["path", "status"], registry=self.registry
        )
        self._tokens = self._counter("tokens", "Tokens generated")
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts")
        self._misses = self._counter("misses", "Prompt tokens that the static set lacked")
        self._drafted = self._counter("drafted", "Tokens drafted")
        self._rejected = self._counter("rejected", "Drafts that were rejected")
        self._cancelled = self._counter("cancelled", "Requests whose client had gone")
        self._first = Histogram(
            "vocabtailor_time_to_first_token_seconds", "From a request to its first token",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._speed = Histogram(
            "vocabtailor_tokens_per_second", "Speed of a request after its first token",
            buckets=_SPEEDS, registry=self.registry,
        )  # fmt: skip
        self._head_rows = self._gauge("head_rows", "Rows of a slot's active set", ["slot"])
        self._memory = self._gauge("memory_bytes", "Memory; anon and file of the process", ["part"])
        self._gauge("queue_length", "Requests that wait").set_function(lambda: pool.n_waiting)
        self._gauge("slots_busy", "Slots that work").set_function(lambda: pool.n_busy)
        self._gauge("slots", "Slots").set(len(pool.slots))

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vocabtailor_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"vocabtailor_{name}", text, labels or [], registry=self.registry)

    def answered(self, path: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()

    def finished(self, summary: Summary) -> None:
        """Count what a request took."""
        before, after = summary.before, summary.after
        self._tokens.inc(summary.n_tokens)
        self._prompt_tokens.inc(summary.n_prompt)
        self._misses.inc(after.misses - before.misses)
        self._drafted.inc(after.drafted - before.drafted)
        self._rejected.inc(after.rejected - before.rejected)
        self._cancelled.inc(summary.cancelled)
        if summary.wait_ms is not None:
            self._first.observe(summary.wait_ms / 1e3)
        if summary.tokens_per_second:
            self._speed.observe(summary.tokens_per_second)
        self._head_rows.labels(str(summary.slot)).set(summary.head_rows)
        for part, n_bytes in dict(summary.memory).items():
            self._memory.labels(part).set(n_bytes)

    def text(self) -> bytes:
        """Return all of it in Prometheus' format."""
        now = process_memory()
        self._memory.labels("anon").set(now.anon)
        self._memory.labels("file").set(now.file)
        return bytes(generate_latest(self.registry))
