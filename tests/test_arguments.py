"""Arguments of the constructor: shown, and refused by name where they do not fit."""

from __future__ import annotations

import inspect
import os
import pydoc
from collections.abc import Callable
from typing import Any

import llama_cpp
import pytest
from exactpair import COMMON

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.errors import BadFileError

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "override of a list": ({"kv_overrides": {"a": [1]}}, r"kv_overrides\['a'\]: found list"),
    "override of None": ({"kv_overrides": {"a": None}}, "kv_overrides"),
    "long override": ({"kv_overrides": {"general.name": "x" * 200}}, "kv_overrides.*too long"),
    "long key": ({"kv_overrides": {"x" * 200: 1}}, "kv_overrides: key"),
    "key that is no text": ({"kv_overrides": {1: 1}}, "kv_overrides: key 1"),
    "large override": ({"kv_overrides": {"a": 2**70}}, "kv_overrides.*64 bits"),
    "overrides in a list": ({"kv_overrides": ["a"]}, "kv_overrides: found list"),
    "long tensor_split": ({"tensor_split": [1.0] * 999}, "tensor_split: 999"),
    "tensor_split of texts": ({"tensor_split": ["a"]}, "tensor_split"),
    "type_v alone": ({"type_k": 8, "type_v": 8}, "type_v.*flash_attn"),
    "unknown type_k": ({"type_k": 999}, "type_k"),
    "unknown type_v": ({"type_v": -5, "flash_attn": True}, "type_v"),
    "n_ctx": ({"n_ctx": -1}, "n_ctx"),
    "n_batch": ({"n_batch": 0}, "n_batch"),
    "pooling_type": ({"pooling_type": 5, "embedding": True}, "pooling_type"),
    "lora_path": ({"lora_path": os.fsdecode(b"\xff.gguf")}, "lora_path.*UTF-8"),
    "a type whose blocks do not fit": ({"type_k": 10}, "type_k: Q2_K has blocks of 256"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_arguments_fault_names_it(tiny_split: Callable[..., Any], name: str) -> None:
    options, text = FAULTS[name]
    with pytest.raises(ValueError, match=text) as caught:
        TailoredLlama(tiny_split("llama").core, **{**COMMON, **options})
    assert not isinstance(caught.value, BadFileError)


def test_names_that_are_not_utf8(tiny_split: Callable[..., Any]) -> None:
    odd = os.fsdecode(b"caf\xe9.core.gguf")
    with pytest.raises(ValueError, match=r"model_path.*UTF-8"):
        TailoredLlama(odd, **COMMON)
    with pytest.raises(ValueError, match=r"vocab_path.*UTF-8"):
        TailoredLlama(tiny_split("llama").core, vocab_path=odd, **COMMON)


@pytest.mark.parametrize("name", ["mode", "whole_head", "audit"])
def test_our_own_arguments(tiny_split: Callable[..., Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TailoredLlama(tiny_split("llama").core, **{name: 7}, **COMMON)  # type: ignore[arg-type]


def test_the_constructor_shows_all_its_parameters() -> None:
    upstream = inspect.signature(llama_cpp.Llama.__init__).parameters
    ours = inspect.signature(TailoredLlama).parameters
    assert set(upstream) - {"self"} <= set(ours)
    for name in ("n_ctx", "n_threads", "lora_path"):
        assert ours[name].default == upstream[name].default
    assert ours["mode"].default == "exact"
    assert next(iter(ours)) == "model_path"
    text = pydoc.plain(pydoc.render_doc(TailoredLlama))
    assert "n_gpu_layers" in text and "vocab_path" in text


@pytest.mark.parametrize("size", [64, 128])
def test_a_context_size_that_is_overridden(tiny_split: Callable[..., Any], size: int) -> None:
    options = {**COMMON, "n_ctx": 0, "kv_overrides": {"llama.context_length": size}}
    llm = TailoredLlama(tiny_split("llama").core, **options)
    assert llm.context_params.n_ctx == size
    llm.close()
