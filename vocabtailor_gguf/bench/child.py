"""One measurement in a fresh process: a model, a mode, a test. Prints one JSON object."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf.bench import timings
from vocabtailor_gguf.bench.loading import load
from vocabtailor_gguf.bench.smaps import memory_by_component
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.process import process_memory

_SPARE = 17  # room for the drafts of a block


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job: mode, model, test and sampler are named in it.

    Returns:
        What was timed in ``ns``, memory in bytes, and of split models their counters. ``n`` where
        fewer tokens were timed than asked, ``tokens`` of greedy texts, ``load_ns``, ``load_ms`` by
        part and ``read`` (in bytes, from the disk) of starts, ``maps`` by component where the
        system tells, ``model_size`` of the tensors in bytes.
    """
    n_text = len(job["text_tokens"])
    n_ctx = max(job["n_prompt"], n_text) + job["n_gen"] + 2 * timings.N_WARM + _SPARE
    result: dict[str, Any] = {}
    if job["mode"] == "core":
        result["ns"] = timings.core(job, n_ctx)
    else:
        begin, read = time.perf_counter_ns(), _bytes_read()
        llm = load(job, n_ctx)
        if job["part"] == "start":
            result["load_ns"] = time.perf_counter_ns() - begin
            result["load_ms"] = llm.load_ms if isinstance(llm, TailoredLlama) else {}
            llm.eval(job["text_tokens"])
            llm.sample(temp=0.0)
            result |= {"ns": time.perf_counter_ns() - begin, "read": _bytes_read() - read}
        else:
            result |= _timed(llm, job)
        if isinstance(llm, TailoredLlama):
            result |= _counted(llm)
    memory = process_memory()
    result |= {"peak": memory.peak, "anon": memory.anon, "file": memory.file}
    of_core = {"core": job["model"], "store": job["vocab"]}
    stock = job["mode"].startswith("stock")
    result["maps"] = memory_by_component({"stock": job["model"]} if stock else of_core)
    header = GGUFHeader(job["model"], lenient=True)
    result["model_size"] = sum(t.n_bytes for t in header.tensors.values())
    return result


def _timed(llm: llama_cpp.Llama, job: dict[str, Any]) -> dict[str, Any]:
    part, tokens, n_gen = job["part"], job["text_tokens"], job["n_gen"]
    if part == "prompt":
        return {"ns": timings.prompt(llm, job["tokens"])}
    if part == "grow":
        return {"ns": timings.grow(llm, tokens, job["n_rows"])}
    if part == "swap":
        return {"ns": timings.swap(llm, tokens, job["n_rows"])}
    ns, found = timings.text(llm, tokens, n_gen, job["sampler"], as_json=part == "json")
    result: dict[str, Any] = {"ns": ns}
    if len(found) < timings.N_WARM + n_gen:
        result["n"] = max(len(found) - timings.N_WARM, 1)
    if job["sampler"] == "greedy":
        result["tokens"] = found
    if job.get("wanted"):
        n = timings.same_choices(llm, tokens, job["wanted"])
        result["same_choices"] = n / len(job["wanted"])
    return result


def _counted(llm: TailoredLlama) -> dict[str, Any]:
    stats = llm.stats
    names = ("head_rows", "drafted", "rejected", "ahead", "agreed")
    return {"report": dict(llm.memory_report()), **{name: stats[name] for name in names}}


def _bytes_read() -> int:
    """Return what this process let come from disks (Linux: proc_pid_io(5)), else 0."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in lines if x.startswith("read_bytes:")), 0)


def main() -> None:
    """Read the job from a file, because token lists are long; print the result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = measure(job)
    print(json.dumps(result), flush=True)
    # freeing is not measured, and not worth waiting for
    os._exit(0)


if __name__ == "__main__":
    main()
