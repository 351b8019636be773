"""Threads that make things beside the one that wants them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from vocabtailor_gguf.binding import native

_T = TypeVar("_T")

_MOST_BESIDE = 2


def _n_beside() -> int:
    """Return the threads that leave a CPU to the one that waits for nothing."""
    return min(_MOST_BESIDE, max((os.cpu_count() or 1) - 1, 1))


class Beside:
    """Threads that make things, as a context manager that ends with the last of them.

    Where it ends with an error, what was made is closed, the last begun first.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(
            _n_beside(),
            thread_name_prefix="vocabtailor-load",
            # OpenMP's threads would spin where the one that this is beside wants to compute
            initializer=native.lib().vt_load_alone,
        )
        self._begun: list[Future[Any]] = []

    def begin(self, make: Callable[[], _T]) -> Future[_T]:
        """Let a thread make something."""
        self._begun.append(self._threads.submit(make))
        return self._begun[-1]

    def __enter__(self) -> Beside:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the threads."""
        self._threads.shutdown(cancel_futures=kind is not None)
        if kind is None:
            return
        for begun in reversed(self._begun):
            if not begun.cancelled() and begun.exception() is None:
                close = getattr(begun.result(), "close", None)
                if close is not None:
                    close()
