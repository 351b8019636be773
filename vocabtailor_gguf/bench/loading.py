"""Models as the measurements load them, each in its mode."""

from __future__ import annotations

from typing import Any

import llama_cpp

from vocabtailor_gguf.llama import TailoredLlama

SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {"temp": 0.0},
    "temp0.8": {"temp": 0.8, "top_k": 40, "top_p": 1.0, "min_p": 0.0},
}


def load(job: dict[str, Any], n_ctx: int) -> llama_cpp.Llama:
    """Load the model of a job in its mode, whatever is timed then.

    Args:
        job: model, mode, vocab, token_set, n_threads and drafts.
        n_ctx: Tokens of the context.
    """
    return _stock(job, n_ctx) if job["mode"].startswith("stock") else _split(job, n_ctx)


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
