"""One measurement in a fresh process: a model, a mode, a test. Prints one JSON object."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.runtime import backend

_N_WARM = 8  # tokens before the clock starts
_SPARE = 17  # room for the drafts of a block
SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {"temp": 0.0},
    "temp0.8": {"temp": 0.8, "top_k": 40, "top_p": 1.0, "min_p": 0.0},
}


def _stock(job: dict[str, Any], n_ctx: int) -> llama_cpp.Llama:
    """Load the unsplit model with room for one output, so that memory is compared fairly.

    llama_cpp.Llama has no argument for it and takes the default, which is changed here.
    """
    low: Any = llama_cpp.llama_cpp
    default = low.llama_context_default_params

    def one_output() -> Any:
        params = default()
        params.n_outputs_max = 1
        return params

    low.llama_context_default_params = one_output
    try:
        return llama_cpp.Llama(job["model"], **_common(job, n_ctx))
    finally:
        low.llama_context_default_params = default


def load(job: dict[str, Any], n_ctx: int) -> llama_cpp.Llama:
    """Load the model of a job in its mode, whatever is timed then."""
    return _stock(job, n_ctx) if job["mode"] == "stock" else _split(job, n_ctx)


def _split(job: dict[str, Any], n_ctx: int) -> TailoredLlama:
    return TailoredLlama(
        job["model"],
        vocab_path=job["vocab"],
        token_set=None if job["mode"] in ("full", "exact-no-set") else job["token_set"],
        mode=job["mode"].partition("-")[0],
        drafts="active" if job["mode"] == "exact-active" else job["drafts"],
        **_common(job, n_ctx),
    )


def _common(job: dict[str, Any], n_ctx: int) -> dict[str, Any]:
    threads = {"n_threads": job["n_threads"], "n_threads_batch": job["n_threads"]}
    return {"n_ctx": n_ctx, "seed": 1, "verbose": False, **threads}


def _prompt_test(llm: llama_cpp.Llama, tokens: list[int]) -> int:
    """Return ns for a prompt and the choice of one token."""
    llm.eval(tokens[:_N_WARM])
    llm.reset()
    begin = time.perf_counter_ns()
    llm.eval(tokens)
    llm.sample(temp=0.0)
    return time.perf_counter_ns() - begin


def _text_test(llm: llama_cpp.Llama, tokens: list[int], n_gen: int, sampler: str) -> int:
    """Return ns for n_gen tokens after a prompt; end of generation does not stop it."""
    stream = llm.generate(tokens, **SAMPLERS[sampler])
    for _ in range(_N_WARM):
        next(stream)
    begin = time.perf_counter_ns()
    for _ in range(n_gen):
        next(stream)
    elapsed = time.perf_counter_ns() - begin
    stream.close()
    return elapsed


def _core_test(job: dict[str, Any], n_ctx: int) -> int:
    """Return ns for the core alone, in the shortest loop: no embedding rows, head or sampling."""
    model = backend.load_model(job["model"], llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_outputs_max = n_ctx, 512, 512, 1
    params.n_threads = params.n_threads_batch = job["n_threads"]
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = backend.new_context(model, params)
    batch = backend.Batch(n_tokens=512, embd=0, n_seq_max=1, verbose=False)

    def decode(n: int, past: int) -> None:
        batch.set_batch([i % 32 for i in range(n)], past, False)
        context.decode(batch)

    decode(_N_WARM, 0)
    if job["n_prompt"]:
        context.kv_cache_clear()
        begin = time.perf_counter_ns()
        decode(job["n_prompt"], 0)
        return time.perf_counter_ns() - begin
    for i in range(_N_WARM):
        decode(1, _N_WARM + i)
    begin = time.perf_counter_ns()
    for i in range(job["n_gen"]):
        decode(1, 2 * _N_WARM + i)
    return time.perf_counter_ns() - begin


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job: mode, model, test and sampler are named in it."""
    n_ctx = max(job["n_prompt"], len(job["text_tokens"])) + job["n_gen"] + 2 * _N_WARM + _SPARE
    result: dict[str, Any] = {}
    if job["mode"] == "core":
        elapsed = _core_test(job, n_ctx)
    else:
        llm = load(job, n_ctx)
        tokens: list[int] = job["tokens"]
        if job["n_prompt"]:
            elapsed = _prompt_test(llm, tokens)
        else:
            elapsed = _text_test(llm, job["text_tokens"], job["n_gen"], job["sampler"])
        if isinstance(llm, TailoredLlama):
            result["report"] = dict(llm.memory_report())
            stats = llm.stats
            result["head_rows"] = stats.head_rows
            result |= {"drafted": stats.drafted, "rejected": stats.rejected}
    memory = process_memory()
    result |= {"ns": elapsed, "peak": memory.peak, "anon": memory.anon, "file": memory.file}
    return result


def main() -> None:
    """Read the job from a file, because token lists are long; print the result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = measure(job)
    print(json.dumps(result), flush=True)
    # freeing is not measured, and not worth waiting for
    os._exit(0)


if __name__ == "__main__":
    main()
