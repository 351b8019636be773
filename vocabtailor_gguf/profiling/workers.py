"""Where tokenising runs: processes of this machine, or a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError

_CONNECT_SECONDS = 30


@contextlib.contextmanager
def process_executor(n: int) -> Iterator[tuple[Executor, int]]:
    """Give an executor of `n` processes, and their number.

    Raises:
        VocabTailorError: One of them died.
    """
    # spawn, not fork: llama.cpp may have threads here already
    with ProcessPoolExecutor(n, multiprocessing.get_context("spawn")) as executor:
        try:
            yield executor, n
        except BrokenProcessPool as e:
            raise VocabTailorError(f"profile: a process that tokenises died: {e}") from e
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
