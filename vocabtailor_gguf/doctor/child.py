"""One decode in a process of its own, because llama.cpp may end it. Prints one JSON object.

Usage: child.py stock MODEL | split MODEL FOLDER | speed CORE VOCAB SECONDS
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf import TailoredLlama, split_model
from vocabtailor_gguf.doctor.machine import allowed_cores, physical_cores

_PROMPT = "The doctor looks at a machine and tells what it can do."
_N_STEPS = 8
_COMMON: dict[str, Any] = {"n_ctx": 256, "n_threads": 2, "n_threads_batch": 2, "verbose": False}


def _digest(logits: npt.NDArray[np.float32]) -> str:
    if not np.isfinite(logits).all():
        raise ValueError("logits are not finite")
    return hashlib.sha256(logits.tobytes()).hexdigest()


def _stock_row(llm: llama_cpp.Llama) -> npt.NDArray[np.float32]:
    pointer: Any = llama_cpp.llama_get_logits_ith(llm._ctx.ctx, -1)
    return np.ctypeslib.as_array(pointer, shape=(llm.n_vocab(),)).copy()


def _full_row(llm: TailoredLlama) -> npt.NDArray[np.float32]:
    ids, logits = llm.last_logits()
    row = np.empty(llm.n_vocab(), dtype=np.float32)
    row[ids] = logits
    return row


def _decode(llm: Any, row: Any) -> dict[str, Any]:
    """Decode a prompt, then greedy tokens one by one; digests of all logits of each step."""
    llm.eval(llm.tokenize(_PROMPT.encode()))
    digests, tokens = [], []
    for _ in range(_N_STEPS):
        logits = row(llm)
        digests.append(_digest(logits))
        tokens.append(int(logits.argmax()))
        llm.eval(tokens[-1:])
    return {"digests": digests, "tokens": tokens}


def _stock(model: str) -> dict[str, Any]:
    return _decode(llama_cpp.Llama(model, **_COMMON), _stock_row)


def _split(model: str, folder: str) -> dict[str, Any]:
    files = split_model(model, folder)
    found = _decode(TailoredLlama(files.core, mode="full", **_COMMON), _full_row)
    exact = TailoredLlama(files.core, mode="exact", **_COMMON)
    stream = exact.generate(exact.tokenize(_PROMPT.encode()), temp=0.0)
    found["exact"] = [next(stream) for _ in range(_N_STEPS)]
    return found


def _speed(core: str, vocab: str, seconds: str) -> dict[str, Any]:
    n_threads = min(allowed_cores(), physical_cores())
    begin = time.perf_counter()
    llm = TailoredLlama(
        core, vocab_path=vocab, n_ctx=512, n_threads=n_threads, n_threads_batch=n_threads,
        verbose=False,
    )  # fmt: skip
    loaded = time.perf_counter()
    stream = llm.generate(llm.tokenize(_PROMPT.encode()), temp=0.0)
    next(stream)
    first = time.perf_counter()
    n = 0
    while time.perf_counter() - first < float(seconds) and llm.n_tokens + 32 < llm.n_ctx():
        next(stream)
        n += 1
    rate = n / (time.perf_counter() - first)
    return {
        "tokens_per_second": rate,
        "load_seconds": loaded - begin,
        "n_threads": n_threads,
        "together": llm.stats.together,
        "why_alone": llm.stats.why_alone,
    }


def main() -> None:
    """Run what the arguments ask for."""
    jobs: dict[str, Callable[..., dict[str, Any]]]
    jobs = {"stock": _stock, "split": _split, "speed": _speed}
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])), flush=True)
    os._exit(0)  # freeing is not what is tried here


if __name__ == "__main__":
    main()
