"""Where tokenising runs: processes of this machine, or a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.context
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError
from vocabtailor_gguf.process import die_with, signal_words

_CONNECT_SECONDS = 30
_END_SECONDS = 10
_LOOK_SECONDS = 0.01


class _Spawning(multiprocessing.context.SpawnContext):
    """Starts processes, and knows how they ended.

    They are spawned, not forked: llama.cpp may have threads here already.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started: list[multiprocessing.context.SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> multiprocessing.context.SpawnProcess:  # type: ignore[override]
        """Start a process; called by the executor."""
        process = multiprocessing.context.SpawnProcess(*args, **kwargs)
        self._started.append(process)
        return process

    def end(self) -> str:
        """Tell in words how the first one ended that was not ended by the executor."""
        # the executor's thread waits for them, too: for a moment neither may know the code
        until = time.monotonic() + _END_SECONDS
        while any(p.exitcode is None for p in self._started) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        codes = [p.exitcode for p in self._started if p.exitcode not in (None, 0, -signal.SIGTERM)]
        if not codes:
            return "died"
        code = codes[0] or 0
        return f"was stopped by {signal_words(-code)}" if code < 0 else f"ended with code {code}"


@contextlib.contextmanager
def process_executor(n: int) -> Iterator[tuple[Executor, int]]:
    """Give an executor of `n` processes, and their number.

    Raises:
        VocabTailorError: One of them died.
    """
    context = _Spawning()
    with ProcessPoolExecutor(n, context, die_with, (os.getpid(),)) as executor:
        try:
            yield executor, n
        except BrokenProcessPool as e:
            raise VocabTailorError(f"profile: a process that tokenises {context.end()}") from e
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def dask_executor(address: str) -> Iterator[tuple[Any, int]]:
    """Give an executor on a Dask cluster, and the number of its threads.

    Args:
        address: Of the scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises:
        UnsupportedError: The package ``distributed`` is not installed.
        VocabTailorError: The scheduler does not answer, or has no workers.
    """
    try:
        import distributed
    except ImportError as e:
        raise UnsupportedError(
            "Dask needs the package distributed: pip install 'vocabtailor_gguf[dask]'"
        ) from e
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as e:
        raise VocabTailorError(f"Dask scheduler {address}: {e}") from e
    with client:
        n = sum(client.nthreads().values())
        if n == 0:
            raise VocabTailorError(f"Dask scheduler {address}: it has no workers")
        with client.get_executor(pure=False) as executor:
            yield executor, n
