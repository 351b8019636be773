"""Cores, memory, and who else uses them."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from vocabtailor_gguf.doctor.check import Check

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_SAMPLE = 0.5  # seconds
_BUSY = 0.5  # cores that another process must take to be named
_LEAST = 1 << 30  # bytes that should be free


def allowed_cores() -> int:
    """Return the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_cores() -> int:
    """Return the cores behind the CPUs, which share them where there is hyper-threading."""
    text = _read(_PROC / "cpuinfo")
    cores = set()
    for block in text.split("\n\n"):
        found = dict(re.findall(r"^(physical id|core id)\s*: (\d+)$", block, flags=re.MULTILINE))
        if len(found) == 2:
            cores.add((found["physical id"], found["core id"]))
    return len(cores) or (os.cpu_count() or 1)


def check_threads() -> Check:
    """Compare threads, cores and quotas."""
    allowed, physical = allowed_cores(), physical_cores()
    best = max(1, min(allowed, physical))
    quota = _read(_CGROUP / "cpu.max").split()
    found = f"{allowed} CPUs on {physical} physical cores"
    if len(quota) == 2 and quota[0].isdigit() and int(quota[0]) < allowed * int(quota[1]):
        cores = int(quota[0]) / int(quota[1])
        return Check(
            "threads", "warn", f"{found}, limited to {cores:.1f} by a quota",
            f"use -t {max(1, int(cores))}: threads that wait for their share slow the others",
        )  # fmt: skip
    default = max((os.cpu_count() or 1) // 2, 1)
    if default != best:
        return Check("threads", "ok", f"{found}; the default is {default}", f"use -t {best}")
    return Check("threads", "ok", f"{found}, which the default uses")


def check_memory() -> Check:
    """Tell how much memory there is."""
    sizes = {n: int(s) << 10 for n, s in re.findall(r"(\w+):\s+(\d+) kB", _read(_PROC / "meminfo"))}
    if "MemAvailable" not in sizes:
        return Check("memory", "ok", "not known on this system")
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    limit, used = (_read(_CGROUP / f"memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        total = min(total, int(limit))
        free = min(free, max(0, int(limit) - int(used)))
    found = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if free < _LEAST:
        return Check(
            "memory", "warn", found, "larger models will be read from disk again and again"
        )
    return Check("memory", "ok", found)


def check_contention() -> Check:
    """Look for other processes that keep the cores busy."""
    policy = os.environ.get("OMP_WAIT_POLICY")
    setting = f"OMP_WAIT_POLICY={policy}" if policy else "OMP_WAIT_POLICY not set"
    before = _process_times()
    if not before:
        return Check("contention", "ok", f"not known on this system; {setting}")
    begin = time.perf_counter()
    time.sleep(_SAMPLE)
    elapsed = time.perf_counter() - begin
    ticks = os.sysconf("SC_CLK_TCK")
    busy = []
    for pid, (name, now) in _process_times().items():
        if pid == os.getpid() or pid not in before:
            continue
        cores = (now - before[pid][1]) / ticks / elapsed
        if cores >= _BUSY:
            busy.append((cores, name, pid))
    if busy:
        shown = ", ".join(f"{n} ({p}) {c:.1f} cores" for c, n, p in sorted(busy, reverse=True)[:3])
        return Check(
            "contention", "warn", f"other processes are busy: {shown}; {setting}",
            "threads of two models spin against each other: wait for the other one, or set "
            "OMP_WAIT_POLICY=passive for both",
        )  # fmt: skip
    return Check("contention", "ok", f"no other process is busy; {setting}")


def _process_times() -> dict[int, tuple[str, int]]:
    """Return name and CPU time in ticks by process id (proc(5), stat)."""
    found = {}
    for path in _PROC.glob("[0-9]*/stat"):
        text = _read(path)
        _, _, rest = text.partition(" (")
        name, _, fields = rest.rpartition(") ")
        values = fields.split()
        if len(values) > 13:
            found[int(path.parent.name)] = (name, int(values[11]) + int(values[12]))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
