"""Each parameter and member of llama_cpp.Llama against what docs/compatibility.md says of it."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import compatibility
import llama_cpp
import numpy as np
import pytest
from compatibility_facts import MEMBERS, PARAMETERS, REFUSED, where_tested
from conftest import TinyModel, TinySplit

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError

MODES = ("exact", "full", "tailored")
COMMON: dict[str, Any] = {
    "n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "seed": 5, "verbose": False,
}  # fmt: skip
PROMPT = b"hello world, hello you"

YARN: dict[str, Any] = {
    "rope_scaling_type": llama_cpp.LLAMA_ROPE_SCALING_TYPE_YARN,
    "rope_freq_scale": 0.25,
    "rope_freq_base": 100.0,
}

# a value of each parameter that is not its default, where there is one that works on a CPU
VALUES: dict[str, dict[str, Any]] = {
    "model_path": {},
    "n_gpu_layers": {"n_gpu_layers": 3},
    "split_mode": {"split_mode": llama_cpp.LLAMA_SPLIT_MODE_NONE},
    "main_gpu": {"main_gpu": 0},
    "tensor_split": {"tensor_split": [1.0]},
    "use_mmap": {"use_mmap": False},
    "use_mlock": {"use_mlock": True},
    "kv_overrides": {"kv_overrides": {"llama.rope.freq_base": 50.0}},
    "seed": {"seed": 77},
    "n_ctx": {"n_ctx": 64},
    "n_batch": {"n_batch": 5},
    "n_ubatch": {"n_ubatch": 3},
    "n_threads": {"n_threads": 2},
    "n_threads_batch": {"n_threads_batch": 2},
    "rope_scaling_type": YARN,
    "pooling_type": {"pooling_type": llama_cpp.LLAMA_POOLING_TYPE_NONE},
    "attention_type": {"attention_type": llama_cpp.LLAMA_ATTENTION_TYPE_CAUSAL},
    "rope_freq_base": {"rope_freq_base": 50.0},
    "rope_freq_scale": {"rope_freq_scale": 0.25},
    "yarn_ext_factor": {"yarn_ext_factor": 0.5, **YARN},
    "yarn_attn_factor": {"yarn_attn_factor": 2.0},
    "yarn_beta_fast": {"yarn_beta_fast": 2.0, **YARN},
    "yarn_beta_slow": {"yarn_beta_slow": 4.0, **YARN},
    "yarn_orig_ctx": {"yarn_orig_ctx": 16, **YARN},
    "logits_all": {"logits_all": True},
    "embedding": {"embedding": True},
    "offload_kqv": {"offload_kqv": False},
    "flash_attn": {"flash_attn": True},
    "op_offload": {"op_offload": False},
    "swa_full": {"swa_full": True},
    "no_perf": {"no_perf": True},
    "last_n_tokens_size": {"last_n_tokens_size": 3},
    "lora_base": {"lora_base": "base.gguf"},
    "numa": {"numa": False},
    "chat_format": {"chat_format": "chatml"},
    "chat_handler": {"chat_handler": lambda **_: {"choices": []}},
    "type_k": {"type_k": llama_cpp.GGML_TYPE_Q8_0},
    "type_v": {"type_v": llama_cpp.GGML_TYPE_F32},
    "spm_infill": {"spm_infill": True},
    "verbose": {"verbose": True},
}


def _rows(llm: Any) -> bytes:
    llm.eval(llm.tokenize(PROMPT))
    return np.asarray(llm.scores[: llm.n_tokens]).tobytes()


# where the effect is seen, other than in the text that is generated
SEEN: dict[str, Callable[[Any], Any]] = {
    "n_ctx": lambda llm: llm.n_ctx(),
    "n_batch": lambda llm: llm.n_batch,
    "logits_all": lambda llm: _rows(llm),
    "embedding": lambda llm: llm.embed("hello"),
    "pooling_type": lambda llm: llm.pooling_type(),
    "last_n_tokens_size": lambda llm: llm.last_n_tokens_size,
    "chat_format": lambda llm: llm.create_chat_completion(
        [{"role": "user", "content": "hi"}], max_tokens=4
    )["usage"]["prompt_tokens"],
    "chat_handler": lambda llm: llm.create_chat_completion([]),
    "spm_infill": lambda llm: llm.spm_infill,
    "verbose": lambda llm: llm.verbose,
}


def generated(llm: Any) -> list[int]:
    """A text of a seed, drawn from few tokens so that most of what may differ shows."""
    tokens = llm.tokenize(PROMPT)
    return list(itertools.islice(llm.generate(tokens, temp=0.9, top_k=30, min_p=0.0), 40))


@pytest.mark.parametrize("name", VALUES)
def test_parameters(name: str, tiny: TinyModel, tiny_split: TinySplit) -> None:
    fact, given = PARAMETERS[name], {**COMMON, **VALUES[name]}
    core = tiny_split("llama").core
    see = SEEN.get(name, generated)
    with contextlib.closing(llama_cpp.Llama(str(tiny("llama")), **given)) as stock:
        expected = see(stock)
    for mode in MODES:
        with contextlib.closing(TailoredLlama(core, mode=mode, **given)) as llm:
            found = see(llm)
            if mode != "tailored" or (see is not generated and fact.tailored == "same"):
                assert found == expected


# those whose value changes stock's text, so that one that was lost would show
TELLING = ("kv_overrides", "seed", "flash_attn", "type_k", "type_v", "rope_freq_base",
           "rope_freq_scale", "rope_scaling_type", "yarn_ext_factor", "yarn_attn_factor",
           "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx")  # fmt: skip


@pytest.mark.parametrize("name", TELLING)
def test_values_tell(name: str, tiny: TinyModel) -> None:
    def text(given: dict[str, Any]) -> list[int]:
        with contextlib.closing(llama_cpp.Llama(str(tiny("llama")), **COMMON | given)) as llm:
            return generated(llm)

    without = {k: v for k, v in VALUES[name].items() if k != name}
    if name == "rope_scaling_type":
        without[name] = llama_cpp.LLAMA_ROPE_SCALING_TYPE_LINEAR
    assert text(VALUES[name]) != text(without)


Probe = Callable[[Any], Any]


def _after(prompt: bytes, probe: Probe) -> Probe:
    def run(llm: Any) -> Any:
        llm.reset()
        llm.eval(llm.tokenize(prompt))
        return probe(llm)

    return run


def _seeded(llm: Any) -> list[int]:
    llm.set_seed(99)
    return generated(llm)


def _chat(llm: Any) -> Any:
    messages = [{"role": "user", "content": "hi"}]
    return llm.create_chat_completion(messages, max_tokens=8, temperature=0.0)["choices"]


def _completion(llm: Any) -> Any:
    return llm.create_completion("hello", max_tokens=8, seed=3)["choices"]


# what is asked of both
PROBES: dict[str, Probe] = {
    "__call__": lambda llm: llm("hello", max_tokens=8, temperature=0.0)["choices"],
    "create_chat_completion": _chat,
    "create_completion": _completion,
    "detokenize": lambda llm: llm.detokenize(llm.tokenize(PROMPT)),
    "eval": _after(PROMPT, lambda llm: llm.n_tokens),
    "eval_tokens": _after(PROMPT, lambda llm: list(llm.eval_tokens)),
    "generate": generated,
    "logits_to_logprobs": lambda llm: llm.logits_to_logprobs(np.arange(5.0)).tolist(),
    "longest_token_prefix": lambda llm: llm.longest_token_prefix([1, 2, 3], [1, 2, 4]),
    "n_ctx": lambda llm: llm.n_ctx(),
    "n_embd": lambda llm: llm.n_embd(),
    "n_vocab": lambda llm: llm.n_vocab(),
    "pooling_type": lambda llm: llm.pooling_type(),
    "reset": _after(PROMPT, lambda llm: (llm.reset(), llm.n_tokens)[1]),
    "sample": _after(PROMPT, lambda llm: llm.sample(temp=0.0)),
    "set_seed": _seeded,
    "token_bos": lambda llm: llm.token_bos(),
    "token_eos": lambda llm: llm.token_eos(),
    "token_nl": lambda llm: llm.token_nl(),
    "tokenize": lambda llm: [llm.tokenize(PROMPT, add_bos=b) for b in (True, False)],
    "tokenizer": lambda llm: llm.tokenizer().decode(llm.tokenizer().encode("hello")),
}
TESTED = [name for name in MEMBERS if "test_members" in where_tested(name, MEMBERS)]


@pytest.fixture(scope="module")
def models(tiny: TinyModel, tiny_split: TinySplit) -> Iterator[dict[str, Any]]:
    """Returns stock and all modes of a tiny model."""
    core = tiny_split("llama").core
    found: dict[str, Any] = {"stock": llama_cpp.Llama(str(tiny("llama")), **COMMON)}
    found |= {mode: TailoredLlama(core, mode=mode, **COMMON) for mode in MODES}
    yield found
    for llm in found.values():
        llm.close()


@pytest.mark.parametrize("name", TESTED)
def test_members(name: str, models: dict[str, Any]) -> None:
    probe = PROBES[name]
    facts = MEMBERS[name]
    expected = probe(models["stock"]) if "same" in (facts.exact, facts.full) else None
    for mode in MODES:
        found = probe(models[mode])
        if getattr(facts, mode) == "same":
            assert found == expected


def test_sampling_elsewhere(models: dict[str, Any]) -> None:
    for mode in MODES:
        llm = models[mode]
        llm.reset()
        llm.eval([5, 6, 7])
        with pytest.raises(VocabTailorError, match="no logits at position 1"):
            llm.sample(idx=1)
        chain = llm._init_sampler(temp=0.0)
        with pytest.raises(UnsupportedError, match="llama_sampler_sample"):
            llama_cpp.llama_sampler_sample(chain.sampler, llm.ctx, -1)


def test_every_parameter_and_member_is_listed() -> None:
    assert list(PARAMETERS) == compatibility.parameters()
    assert sorted(MEMBERS) == compatibility.members()
    assert set(VALUES) == {
        n for n in PARAMETERS if "test_parameters" in where_tested(n, PARAMETERS)
    }
    assert set(PROBES) == set(TESTED)
    states = {"same", "differs"}
    for fact in (*PARAMETERS.values(), *MEMBERS.values()):
        assert {fact.exact, fact.full, fact.tailored} <= states
        assert fact.note or {fact.exact, fact.full, fact.tailored} == {"same"}


def test_the_tests_that_are_named_are_there() -> None:
    folder = Path(__file__).parent
    tests = [where_tested(name, facts) for facts in (PARAMETERS, MEMBERS) for name in facts]
    tests += [refusal.test for refusal in REFUSED]
    for test in tests:
        if test != "-":
            file, function = re.fullmatch(r"(\w+\.py)::(\w+)(?:\[.*\])?", test).groups()  # type: ignore[union-attr]
            assert f"\ndef {function}(" in (folder / file).read_text(encoding="utf-8")


def test_the_document_is_up_to_date() -> None:
    """If not, run tools/compatibility.py."""
    assert compatibility.TARGET.read_text(encoding="utf-8") == compatibility.render()
