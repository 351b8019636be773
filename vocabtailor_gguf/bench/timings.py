"""The clocks of the tests: what runs between two looks at the time."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np

from vocabtailor_gguf.bench.loading import SAMPLERS
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.sets.token_set import TokenSet

N_WARM = 8  # tokens before the clock starts
_N_REPEATED = 5  # changes of the active set, of which the median counts

# so many members that no measurement comes to the end of them
_SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 400,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 24},
            "quantity": {"type": "integer", "minimum": 0, "maximum": 999},
            "available": {"type": "boolean"},
        },
        "required": ["name", "quantity", "available"],
    },
}


def prompt(llm: llama_cpp.Llama, tokens: Sequence[int]) -> int:
    """Return ns for a prompt and the choice of one token."""
    llm.eval(tokens[:N_WARM])
    llm.reset()
    begin = time.perf_counter_ns()
    llm.eval(tokens)
    llm.sample(temp=0.0)
    return time.perf_counter_ns() - begin


def text(
    llm: llama_cpp.Llama, tokens: Sequence[int], n_gen: int, sampler: str, *, as_json: bool = False
) -> tuple[int, list[int]]:
    """Generate after a prompt; the end of generation stops it only where a grammar is at its end.

    Args:
        llm: The model.
        tokens: (n,) token ids of the prompt.
        n_gen: Tokens that are timed, after some that are not.
        sampler: Of `SAMPLERS`.
        as_json: Generate under a grammar, made from a JSON schema.

    Returns:
        ns of the timed tokens, and all tokens.
    """
    options = dict(SAMPLERS[sampler])
    if as_json:
        schema = json.dumps(_SCHEMA)
        options["grammar"] = llama_cpp.LlamaGrammar.from_json_schema(schema, verbose=False)
    found: list[int] = []
    begin = 0
    with contextlib.closing(llm.generate(tokens, **options)) as stream:
        for token in stream:
            found.append(int(token))
            if len(found) == N_WARM:
                begin = time.perf_counter_ns()
            if len(found) == N_WARM + n_gen or (as_json and token == llm.token_eos()):
                break
        elapsed = time.perf_counter_ns() - begin
    return elapsed, found


def same_choices(llm: llama_cpp.Llama, tokens: Sequence[int], wanted: Sequence[int]) -> int:
    """Return how many tokens of a text a model would choose itself where they stand.

    Args:
        llm: The model, which chooses greedily.
        tokens: (n,) token ids of the prompt.
        wanted: (m,) token ids that followed.
    """
    llm.reset()
    llm.eval(tokens)
    n = 0
    for token in wanted:
        n += int(llm.sample(temp=0.0)) == token
        llm.eval([token])
    return n


def core(job: dict[str, Any], n_ctx: int) -> int:
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

    decode(N_WARM, 0)
    if job["n_prompt"]:
        context.kv_cache_clear()
        begin = time.perf_counter_ns()
        decode(job["n_prompt"], 0)
        return time.perf_counter_ns() - begin
    for i in range(N_WARM):
        decode(1, N_WARM + i)
    begin = time.perf_counter_ns()
    for i in range(job["n_gen"]):
        decode(1, 2 * N_WARM + i)
    return time.perf_counter_ns() - begin


def grow(llm: TailoredLlama, tokens: Sequence[int], n_rows: int) -> int:
    """Return ns for new rows in the head of a session that has a text, the median of some times."""
    llm.eval(tokens)
    head = llm._text.head
    inactive = np.setdiff1d(np.arange(llm.n_vocab(), dtype=np.int32), llm.active_ids)
    rng = np.random.default_rng(1)

    def once() -> int:
        ids = rng.choice(inactive, min(n_rows, inactive.size), replace=False)
        begin = time.perf_counter_ns()
        head.append(ids)
        elapsed = time.perf_counter_ns() - begin
        head.reset()
        return elapsed

    return _median(once)


def swap(llm: TailoredLlama, tokens: Sequence[int], n_rows: int) -> int:
    """Return ns for another static set of random ids in a session, the median of some times."""
    llm.eval(tokens)
    rng = np.random.default_rng(1)

    def once() -> int:
        chosen = TokenSet(rng.choice(llm.n_vocab(), n_rows, replace=False))
        begin = time.perf_counter_ns()
        llm.set_token_set(chosen)
        return time.perf_counter_ns() - begin

    return _median(once)


def _median(once: Callable[[], int]) -> int:
    once()  # the first one makes room
    return round(statistics.median(once() for _ in range(_N_REPEATED)))
