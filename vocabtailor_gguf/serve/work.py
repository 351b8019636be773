"""A request's work in a slot's thread, and what the event loop hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from vocabtailor_gguf.runtime.reports import MemoryReport, Stats
from vocabtailor_gguf.serve.plan import Plan, Run
from vocabtailor_gguf.serve.pool import Pool, Slot
from vocabtailor_gguf.serve.watch import View, Watch


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a run gave: an answer of ``llama_cpp.Llama``, or a chunk of one.

    Attributes:
        index: Of the choice.
        value: The answer or the chunk.
    """

    index: int
    value: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a request took.

    Attributes:
        slot: Number of the slot.
        n_prompt: Tokens of prompts; of `n` choices each counts.
        n_tokens: Tokens given.
        wait_ms: From the request's arrival to its first token, in ms; None where none came.
        prompt_ms: Of it in the slot.
        tokens_per_second: Speed after the first token.
        head_rows: Rows of the active set at the last token; where there was none, at the end.
        before: Counters of the slot before.
        after: And after.
        audited: Steps that were audited.
        outside: Of them those whose choice was not active.
        memory: Of the slot and the process.
        cancelled: Whether the client had gone.
    """

    slot: int
    n_prompt: int
    n_tokens: int
    wait_ms: float | None
    prompt_ms: float | None
    tokens_per_second: float
    head_rows: int
    before: Stats
    after: Stats
    audited: int
    outside: int
    memory: MemoryReport
    cancelled: bool

    def told(self, plan: Plan) -> dict[str, Any]:
        """Return what the field ``vocabtailor`` of the answer to a plan says."""
        before, after = self.before, self.after
        told = {
            "mode": plan.preset.mode,
            "token_set": plan.preset.token_set,
            "seed": plan.seed,
            "slot": self.slot,
            "head_rows": self.head_rows,
            "misses": after.misses - before.misses,
            "drafted": after.drafted - before.drafted,
            "rejected": after.rejected - before.rejected,
            "prompt_ms": self.prompt_ms,
            "tokens_per_second": round(self.tokens_per_second, 2),
        }
        if plan.preset.audit:
            told |= {"audited": self.audited, "outside": self.outside}
        return told


class Work:
    """The work of a request on a slot; made by `start`.

    Attributes:
        summary: What it took; None before the end.
        slot: Where it runs.
        when_ended: Called in the event loop after the last piece.
    """

    def __init__(self, plan: Plan, slot: Slot, arrived: float) -> None:
        self.slot = slot
        self.summary: Summary | None = None
        self.when_ended: Callable[[], None] = lambda: None
        self._plan = plan
        self._arrived = arrived
        self._watch = Watch(plan.most_held)
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()

    def cancel(self) -> None:
        """Stop it at the next token; the slot is free after that."""
        self._watch.cancel()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what the runs give, and raise what went wrong."""
        while (piece := await self._heard.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _say(self, what: Piece) -> None:
        self._loop.call_soon_threadsafe(self._heard.put_nowait, what)

    def _ended(self, error: BaseException | None) -> None:
        self.when_ended()
        self._heard.put_nowait(error)

    def run(self) -> None:
        """Do it, in the slot's thread."""
        end: BaseException | None = None
        try:
            self._measured()
        except Exception as e:
            end = e
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens
            self._loop.call_soon_threadsafe(self._ended, end)

    def _measured(self) -> None:
        llm, watch = self.slot.llm, self._watch
        self.slot.use(self._plan.preset)
        before, audits = llm.stats, llm.audit_report()
        watch.began = time.perf_counter()
        try:
            self._generate()
        finally:
            audited = llm.audit_report()
            self.summary = Summary(
                slot=self.slot.number,
                n_prompt=watch.n_prompt,
                n_tokens=watch.n_tokens,
                wait_ms=None if watch.first is None else 1e3 * (watch.first - self._arrived),
                prompt_ms=None if watch.first is None else 1e3 * (watch.first - watch.began),
                tokens_per_second=watch.tokens_per_second,
                head_rows=watch.head_rows or llm.stats.head_rows,
                before=before,
                after=llm.stats,
                audited=audited.audited - audits.audited,
                outside=audited.outside - audits.outside,
                memory=llm.memory_report(),
                cancelled=watch.cancelled,
            )

    def _generate(self) -> None:
        for run in self._plan.runs:
            if self._watch.cancelled:
                return
            if self._plan.anew:
                self.slot.llm.reset()
            with self.slot.learning():
                self._do(run)

    def _do(self, run: Run) -> None:
        out = run.call(View(self.slot.llm, self._watch))
        if isinstance(out, dict):
            self._say(Piece(run.index, out))
            return
        with contextlib.closing(out):
            for chunk in out:
                self._watch.told()
                self._say(Piece(run.index, chunk))


async def start(
    plan: Plan, pool: Pool, arrived: float, finished: Callable[[Summary], None]
) -> Work:
    """Wait for a slot and begin.

    Args:
        plan: What to do.
        pool: Where a slot comes from, and goes when the work has ended.
        arrived: When the request came, in s of ``time.perf_counter``.
        finished: Hears what it took.

    Raises:
        ApiError: Too many requests wait.
    """
    slot = await pool.take(plan.prompt, plan.preset)
    work = Work(plan, slot, arrived)

    def ended() -> None:
        pool.give(slot)
        if work.summary is not None:
            finished(work.summary)

    work.when_ended = ended
    slot.thread.submit(work.run)
    return work
