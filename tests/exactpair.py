"""A stock model and the exact mode of its split, and what both are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf import TailoredLlama

COMMON: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
# the same remainders as in TABLES for every group of rows that ggml may form
MORE_ROWS = 1600

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temp": 0.0},
    "default": {},
    "hot": {"temp": 1.5, "top_k": 100, "top_p": 1.0, "min_p": 0.0},
    "top-k 1": {"temp": 1.0, "top_k": 1},
    "min-p": {"temp": 1.3, "top_k": 0, "top_p": 1.0, "min_p": 0.1},
    "min-p, small": {"temp": 0.9, "top_k": 0, "top_p": 1.0, "min_p": 1e-4},
    "top-p alone": {"temp": 1.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0},
    "typical alone": {"temp": 1.0, "top_k": 0, "typical_p": 0.7, "top_p": 1.0, "min_p": 0.0},
    "typical": {"temp": 1.0, "top_k": 50, "typical_p": 0.7},
    "plain draw": {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "unscaled draw": {"temp": -1.0},
    "penalties": {"temp": 0.8, "repeat_penalty": 1.4, "frequency_penalty": 0.5},
    "rewards": {"temp": 0.0, "repeat_penalty": 0.7, "presence_penalty": -0.5},
    "greedy, penalties": {"temp": 0.0, "repeat_penalty": 1.2, "presence_penalty": 0.6},
    "mirostat": {"temp": 0.9, "mirostat_mode": 1},
    "mirostat 2": {"temp": 0.9, "mirostat_mode": 2},
}


def take(llm: llama_cpp.Llama, prompt: list[int], n: int, **sampling: Any) -> list[int]:
    """The first tokens that a model generates from scratch."""
    llm.reset()
    llm.set_seed(sampling.pop("seed", 1))
    tokens = []
    stream = llm.generate(prompt, reset=True, **sampling)
    for token in stream:
        tokens.append(token)
        if len(tokens) == n:
            break
    stream.close()
    return tokens


class Pair:
    """A stock model and the exact mode of its split."""

    def __init__(self, model: Path, core: Path, **options: Any) -> None:
        exact = {k: options.pop(k) for k in ("token_set", "whole_head", "learn") if k in options}
        self.stock = llama_cpp.Llama(str(model), **{**COMMON, **options})
        self.exact = TailoredLlama(core, mode="exact", **exact, **{**COMMON, **options})

    def close(self) -> None:
        self.stock.close()
        self.exact.close()


PROMPTS = ([5, 300, 301, 302], [7, 400])
