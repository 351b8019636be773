"""Overrides of a model's keys reach the core and the head, as in stock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, take

from vocabtailor_gguf import TailoredLlama, VocabStore

# whether the model's own key changes the logits
OVERRIDES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "gemma2 cap": ("gemma2", {"gemma2.final_logit_softcapping": 5.0}, True),
    "gemma3 cap": ("gemma3", {"gemma3.final_logit_softcapping": 5.0}, True),
    "gemma4 cap": ("gemma4", {"gemma4.final_logit_softcapping": 5.0}, True),
    "granite scale": ("granite", {"granite.logit_scale": 4.0}, True),
    "minicpm scale": ("minicpm", {"minicpm.logit_scale": 0.5}, True),
    "command-r scale": ("command-r", {"command-r.logit_scale": 0.75}, True),
    "cohere2 scale": ("cohere2", {"cohere2.logit_scale": 0.75}, True),
    "no scale": ("command-r", {"command-r.logit_scale": 0.0}, True),
    "granite, embeddings": ("granite", {"granite.embedding_scale": 1.0}, True),
    "a number of another type": ("granite", {"granite.logit_scale": 4}, False),
    "a key that llama has not": ("llama", {"llama.logit_scale": 4.0}, False),
    "rope": ("llama", {"llama.rope.freq_base": 500.0}, True),
    "the vocabulary's": ("llama", {"tokenizer.ggml.eos_token_id": 300}, False),
}


def logits(llm: Any, ids: list[int]) -> np.ndarray:
    llm.reset()
    llm.eval(ids)
    return np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(llm.n_vocab(),)).copy()


@pytest.mark.parametrize("mode", ["full", "exact"])
@pytest.mark.parametrize("name", OVERRIDES)
def test_overrides_are_stocks(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], name: str, mode: Any
) -> None:
    model, overrides, changes = OVERRIDES[name]
    asked: dict[str, Any] = {**COMMON, "kv_overrides": overrides}
    files = tiny_split(model)
    with contextlib.ExitStack() as stack:
        stock = stack.enter_context(contextlib.closing(llama_cpp.Llama(str(tiny(model)), **asked)))
        ours = stack.enter_context(
            contextlib.closing(TailoredLlama(files.core, mode=mode, **asked))
        )
        plain = stack.enter_context(
            contextlib.closing(TailoredLlama(files.core, mode=mode, **COMMON))
        )
        expected = logits(stock, PROMPTS[0])
        assert logits(ours, PROMPTS[0]).tobytes() == expected.tobytes()
        assert (logits(plain, PROMPTS[0]).tobytes() != expected.tobytes()) == changes
        assert ours.token_eos() == stock.token_eos()
        for sampling in ({"temp": 0.0}, {"temp": 1.0, "top_k": 0, "min_p": 0.05}):
            found = [take(m, PROMPTS[0], 24, **sampling) for m in (stock, ours)]
            assert found[0] == found[1]


@pytest.mark.parametrize("values", [(float("nan"), 0.0), (1.0, -1.0), (1.0, float("inf"))])
def test_what_is_no_scale(tiny_split: Callable[..., Any], values: tuple[float, float]) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        with pytest.raises(RuntimeError, match="finite"):
            store.set_logits(scale=values[0], softcap=values[1])
        assert (store.logit_scale, store.logit_softcap) == (1.0, 0.0)
