"""What a benchmark ran on: the processor, what ggml makes of it, and how fast memory is read."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llama_cpp
import numpy as np

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.doctor.build import built_flags
from vocabtailor_gguf.record import Record

# of llama_print_system_info, those that decide how fast a product of weights is
_FLAGS = (
    "AVX", "AVX2", "AVX_VNNI", "AVX512", "AVX512_VNNI", "AVX512_BF16", "AMX_INT8",
    "NEON", "DOTPROD", "MATMUL_INT8", "SVE", "SME",
)  # fmt: skip
_N_BYTES = 256 << 20  # far more than the second-level caches of the cores hold
_N_READS = 5


@dataclasses.dataclass(frozen=True)
class Machine(Record):
    """The header of a benchmark.

    Attributes:
        cpu: Name of the processor.
        flags: Instruction sets that ggml was compiled for, of those that matter, in lower case.
        system: Operating system and architecture.
        n_threads: Threads of the measurements.
        bandwidth: What so many threads read of memory, in 10**9 bytes a second.
        build: What libvocabtailor was built for.
        llama_cpp: Version of llama-cpp-python.
    """

    cpu: str
    flags: tuple[str, ...]
    system: str
    n_threads: int
    bandwidth: float
    build: str
    llama_cpp: str


def this_machine(n_threads: int) -> Machine:
    """Return what is known of this machine; its memory is read for a part of a second."""
    built = built_flags()
    return Machine(
        cpu=_cpu_name(),
        flags=tuple(flag.lower() for flag in _FLAGS if flag in built),
        system=f"{platform.system()} {platform.machine()}",
        n_threads=n_threads,
        bandwidth=read_bandwidth(n_threads),
        build=native.ffi.string(native.lib().vt_build_info()).decode(),
        llama_cpp=llama_cpp.__version__,
    )


def read_bandwidth(n_threads: int, n_bytes: int = _N_BYTES) -> float:
    """Return 10**9 bytes a second that threads read, the best of several times.

    Each thread adds up its own part of an array of integers, which numpy does without its lock.
    One core alone may add more slowly than memory gives, so with few threads this is a lower bound.

    Args:
        n_threads: Threads.
        n_bytes: Size of the array.
    """
    array = np.ones(n_bytes // 8, dtype=np.int64)
    parts = np.array_split(array, n_threads)
    best = float("inf")
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(_N_READS):
            begin = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - begin)
    return array.nbytes / best / 1e9


def _cpu_name() -> str:
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        return told or platform.processor()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(
            line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
