"""Slots: texts over one engine, and who has which."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vocabtailor_gguf.serve.errors import queue_full
from vocabtailor_gguf.serve.preset import Preset
from vocabtailor_gguf.serve.watch import WatchedLlama
from vocabtailor_gguf.sets.kept import Kept
from vocabtailor_gguf.sets.token_set import TokenSet


class Slot:
    """A model with a text of its own, and the thread that works on it.

    Args:
        number: Its number.
        llm: The model.
        sets: Token sets by name.
        preset: What the model was loaded with.
        kept: What exact mode drafts with beside the set, and adds to; None to learn nothing.

    Attributes:
        number: Its number.
        llm: The model.
        preset: What it generates with.
        thread: Runs the work, one piece after another.
    """

    def __init__(
        self,
        number: int,
        llm: WatchedLlama,
        sets: Mapping[str, TokenSet | None],
        preset: Preset,
        *,
        kept: Kept | None = None,
    ) -> None:
        self.number = number
        self.llm = llm
        self.preset = preset
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"slot-{number}")
        self._sets = sets
        self._kept = kept
        self._version = 0  # of what is kept
        self._n_known = 0  # tokens of it that the model drafts with

    def use(self, preset: Preset) -> None:
        """Let the model generate with a preset from here on."""
        # what other modes may produce must not depend on the requests before
        if self.preset.token_set != preset.token_set or (self._n_known and preset.mode != "exact"):
            self._set_token_set(preset.token_set)
        if (self.preset.mode, self.preset.audit) != (preset.mode, preset.audit):
            self.llm.set_mode(preset.mode, audit=preset.audit)
            self._n_known = 0
        self.preset = preset

    def _set_token_set(self, name: str) -> None:
        self.llm.set_token_set(self._sets[name])
        self.preset = dataclasses.replace(self.preset, token_set=name)
        self._n_known = 0

    def catch_up(self) -> None:
        """Let drafts of exact mode have what all slots know.

        Static rows that are shared with other slots become the slot's own with the first token
        that those have not.
        """
        if self._kept is None or self.preset.mode != "exact":
            return
        version, tokens = self._kept.tokens()
        if version != self._version:  # some were forgotten
            self._set_token_set(self.preset.token_set)
            self._version = version
        if len(tokens) > self._n_known:
            self.llm.learn_tokens(tokens[self._n_known :])
            self._n_known = len(tokens)

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        """Let a generation of exact mode draft with what is known, and note what it lacked."""
        if self._kept is None or self.preset.mode != "exact":
            yield
            return
        self.catch_up()
        before = self.llm.needed_tokens()
        try:
            yield
        finally:
            self._kept.note(self.llm.needed_tokens() - before)

    def shared(self, prompt: Sequence[int]) -> int:
        """Return how many tokens its text and a prompt begin with alike; only while it is free."""
        n = min(self.llm.n_tokens, len(prompt))
        differ = np.flatnonzero(self.llm.input_ids[:n] != np.asarray(prompt[:n], dtype=np.int32))
        return int(differ[0]) if differ.size else n


class Pool:
    """Gives slots, first come first served; all from one event loop.

    Args:
        slots: The slots.
        limit: Requests that may wait.
        kept: What the slots learn.
    """

    def __init__(self, slots: Sequence[Slot], limit: int, kept: Kept | None = None) -> None:
        self.slots = tuple(slots)
        self.limit = limit
        self._kept = kept
        self._free = list(slots)  # the one that was used last is at the end
        self._waiting: collections.deque[asyncio.Future[Slot]] = collections.deque()

    @property
    def n_waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def n_busy(self) -> int:
        """Slots that work."""
        return len(self.slots) - len(self._free)

    def check_room(self) -> None:
        """Check that another request may come.

        Raises:
            ApiError: Too many wait.
        """
        if not self._free and self.n_waiting >= self.limit:
            raise queue_full(self.n_waiting)

    async def take(self, prompt: Sequence[int], preset: Preset) -> Slot:
        """Return a slot, of the free ones that whose text shares most with a prompt.

        Of those that share as much, one that has the preset.

        Raises:
            ApiError: Too many wait.
        """
        self.check_room()
        if self._free:
            slot = max(self._free, key=lambda s: (s.shared(prompt), s.preset == preset))
            self._free.remove(slot)
            return slot
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(turn.result())
            else:
                with contextlib.suppress(ValueError):  # it may have been skipped already
                    self._waiting.remove(turn)
            raise

    def give(self, slot: Slot) -> None:
        """Take a slot back; who has waited longest gets it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(slot)
                return
        self._free.append(slot)

    def save_learned(self) -> None:
        """Keep what slots have learned for the next start; no slot waits for that."""
        if self._kept is not None:
            self._kept.save()

    def close(self, seconds: float | None = None) -> bool:
        """Wait for the work of all slots, and free their models, forks first.

        What they have learned is kept in any case.

        Args:
            seconds: How long to wait for each; None for as long as it takes.

        Returns:
            False where one has not ended; nothing is freed then.
        """
        self.save_learned()
        for slot in self.slots:
            try:
                slot.thread.submit(int).result(seconds)
            except TimeoutError:
                return False
        self.save_learned()
        for slot in reversed(self.slots):
            slot.thread.shutdown()
            slot.llm.close()
        return True
