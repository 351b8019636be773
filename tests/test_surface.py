"""The rest of llama_cpp.Llama's surface, against stock."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, take

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.errors import BadFileError, MismatchError, UnsupportedError

N_VOCAB = 2048


@pytest.fixture
def stock(tiny: Callable[..., Path]) -> Iterator[llama_cpp.Llama]:
    llm = llama_cpp.Llama(str(tiny("llama", n_vocab=N_VOCAB)), **COMMON)
    yield llm
    llm.close()


@pytest.fixture(params=["exact", "full"])
def ours(request: pytest.FixtureRequest, tiny_split: Callable[..., Any]) -> Iterator[TailoredLlama]:
    core = tiny_split("llama", n_vocab=N_VOCAB).core
    with contextlib.closing(TailoredLlama(core, mode=request.param, **COMMON)) as llm:
        yield llm


def halve_even_ids(input_ids: Any, scores: Any) -> Any:
    found = scores.copy()
    found[::2] *= 0.5
    return found


def forbid_what_was_said(input_ids: Any, scores: Any) -> Any:
    found = scores.copy()
    found[np.asarray(input_ids)] = -np.inf
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bias", [None, {1900: 3.0, 350: -5.0}])
@pytest.mark.parametrize("processors", [[halve_even_ids], [forbid_what_was_said, halve_even_ids]])
def test_logits_processors(
    stock: llama_cpp.Llama,
    ours: TailoredLlama,
    processors: list[Any],
    bias: Any,
    temperature: float,
) -> None:
    asked: dict[str, Any] = {"max_tokens": 40, "temperature": temperature, "seed": 5}
    found = []
    for llm in (stock, ours):
        chosen = llama_cpp.LogitsProcessorList(processors)
        if bias is not None and llm is stock:
            # stock extends the list by the bias and then loses it
            row = np.array([bias.get(t, 0.0) for t in range(N_VOCAB)], dtype=np.single)
            chosen = llama_cpp.LogitsProcessorList([*processors, lambda i, s, row=row: s + row])
            out = llm.create_completion(PROMPTS[0], logits_processor=chosen, **asked)
        else:
            out = llm.create_completion(
                PROMPTS[0], logits_processor=chosen, logit_bias=bias, **asked
            )
        found.append(out["choices"])
    assert found[0] == found[1]


def test_an_empty_list_of_processors_is_nothing(ours: TailoredLlama) -> None:
    asked: dict[str, Any] = {"max_tokens": 20, "temperature": 0.0}
    plain = ours.create_completion(PROMPTS[0], **asked)["choices"]
    empty = llama_cpp.LogitsProcessorList([])
    assert ours.create_completion(PROMPTS[0], logits_processor=empty, **asked)["choices"] == plain


def test_processors_in_tailored_mode(tiny_split: Callable[..., Any]) -> None:
    core = tiny_split("llama", n_vocab=N_VOCAB).core
    seen: list[int] = []

    def look(input_ids: Any, scores: Any) -> Any:
        assert scores.shape == (N_VOCAB,)
        seen.append(int(np.isfinite(scores).sum()))
        found = scores.copy()
        found[900] = 1e6
        found[1999] = 1e9  # not in the set: what it is given is lost
        return found

    chosen = TokenSet([900, 901])
    with contextlib.closing(
        TailoredLlama(core, mode="tailored", token_set=chosen, **COMMON)
    ) as llm:
        stream = llm.generate([5], temp=0.0, logits_processor=llama_cpp.LogitsProcessorList([look]))
        assert [next(stream) for _ in range(3)] == [900] * 3
        assert seen == [llm.active_ids.size] * 3


def test_stopping_criteria_see_stocks_scores(stock: llama_cpp.Llama, ours: TailoredLlama) -> None:
    seen: list[list[Any]] = []
    for llm in (stock, ours):
        rows: list[Any] = []

        def stop(ids: Any, scores: Any, rows: list[Any] = rows, llm: Any = llm) -> bool:
            row = np.asarray(scores) if llm is ours else None
            rows.append((np.asarray(ids).tolist(), row))
            return len(rows) == 4

        criteria = llama_cpp.StoppingCriteriaList([stop])
        list(llm.generate(PROMPTS[0], temp=0.0, stopping_criteria=criteria))
        seen.append(rows)
    assert [ids for ids, _ in seen[0]] == [ids for ids, _ in seen[1]]
    stock.reset()
    for ids, row in seen[1]:
        stock.reset()
        stock.eval(ids)
        pointer: Any = stock._ctx.get_logits_ith(-1)
        expected = np.ctypeslib.as_array(pointer, shape=(N_VOCAB,))
        assert int(row.argmax()) == int(expected.argmax())
        assert row.shape == (N_VOCAB,)


def test_raw_logits_are_real_or_refused(stock: llama_cpp.Llama, ours: TailoredLlama) -> None:
    for llm in (stock, ours):
        llm.eval([5, 300, 301])
    for name in ("get_logits", "get_logits_ith"):
        args = () if name == "get_logits" else (-1,)
        rows = [
            np.ctypeslib.as_array(getattr(llm._ctx, name)(*args), shape=(N_VOCAB,)).copy()
            for llm in (stock, ours)
        ]
        assert rows[0].tobytes() == rows[1].tobytes()
    with pytest.raises(VocabTailorError, match="last output"):
        ours._ctx.get_logits_ith(3)
    with pytest.raises(UnsupportedError, match="stub rows"):
        _ = ours.ctx


def test_states(stock: llama_cpp.Llama, ours: TailoredLlama) -> None:
    found = []
    for llm in (stock, ours):
        stream = llm.generate(PROMPTS[0], temp=0.0)
        first = [next(stream) for _ in range(9)]
        state = llm.save_state()
        later = [next(stream) for _ in range(5)] if llm is stock else []
        stream.close()
        assert state.n_tokens == len(PROMPTS[0]) + 8
        take(llm, PROMPTS[1], 7, temp=0.0)
        again = []
        for _ in range(2):
            llm.load_state(state)
            assert llm.n_tokens == state.n_tokens
            text = llm._input_ids.tolist()
            stream = llm.generate([*text, first[-1]], temp=0.0)
            again.append([next(stream) for _ in range(5)])
            stream.close()
        assert again[0] == again[1]
        if llm is stock:
            assert again[0] == later
        found.append((first, again[0]))
        if llm is ours:
            assert len(state.llama_state) < 4 * N_VOCAB * 8 + 2 * len(state.llama_state)
            assert state.scores.size == 0
    assert found[0] == found[1]


def test_a_state_of_another_model_is_refused(
    ours: TailoredLlama, tiny_split: Callable[..., Any]
) -> None:
    with contextlib.closing(TailoredLlama(tiny_split("qwen2").core, **COMMON)) as other:
        other.eval([5, 6, 7])
        state = other.save_state()
    with pytest.raises(VocabTailorError, match="another model"):
        ours.load_state(state)
    assert ours.n_tokens == 0
    assert len(take(ours, PROMPTS[0], 4, temp=0.0)) == 4


def test_caches(stock: llama_cpp.Llama, ours: TailoredLlama) -> None:
    found = []
    for llm in (stock, ours):
        llm.set_cache(llama_cpp.LlamaRAMCache())
        texts = []
        for prompt in (PROMPTS[0], PROMPTS[1], [*PROMPTS[0], 310], PROMPTS[0]):
            out = llm.create_completion(prompt, max_tokens=12, temperature=0.0)
            texts.append(out["choices"][0]["text"])
        llm.set_cache(None)
        out = llm.create_completion(PROMPTS[1], max_tokens=12, temperature=0.0)
        found.append([*texts, out["choices"][0]["text"]])
    assert found[0] == found[1]


def test_pickle_and_copy(ours: TailoredLlama) -> None:
    ours.set_token_set(TokenSet([900]))
    expected = take(ours, PROMPTS[0], 12, temp=0.0)
    for made in (pickle.loads(pickle.dumps(ours)), copy.copy(ours)):
        with contextlib.closing(made) as again:
            assert again.mode == ours.mode
            assert again.n_ctx() == ours.n_ctx()
            assert take(again, PROMPTS[0], 12, temp=0.0) == expected


FACTS: dict[str, Callable[[Any], Any]] = {
    "n_embd": lambda m: m.n_embd(),
    "n_vocab": lambda m: m.n_vocab(),
    "n_params": lambda m: m._model.n_params(),
    "size": lambda m: m._model.size(),
    "n_ctx_train": lambda m: m._model.n_ctx_train(),
    "desc": lambda m: m._model.desc(),
    "rope": lambda m: m._model.rope_freq_scale_train(),
    "layers": lambda m: llama_cpp.llama_model_n_layer(m.model),
    "heads": lambda m: llama_cpp.llama_model_n_head(m.model),
    "heads of keys": lambda m: llama_cpp.llama_model_n_head_kv(m.model),
    "metadata": lambda m: dict(m.metadata),
    "tokenizer": lambda m: m.tokenizer().encode("hello"),
    "pooling": lambda m: m.pooling_type(),
}


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2", "phi2", "gemma3n"])
def test_facts_of_the_model(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], name: str, fact: str
) -> None:
    stock = llama_cpp.Llama(str(tiny(name)), **COMMON)
    with contextlib.closing(TailoredLlama(tiny_split(name).core, **COMMON)) as ours:
        assert FACTS[fact](ours) == FACTS[fact](stock)
        assert ours.split_metadata["vocabtailor.kind"] in ("core", "vocab")
    stock.close()


CALLS: dict[str, Callable[[Any], Any]] = {
    "completion": lambda m: m("x", max_tokens=2),
    "chat": lambda m: m.create_chat_completion([{"role": "user", "content": "x"}], max_tokens=2),
    "tokenize": lambda m: m.tokenize(b"x y"),
    "detokenize": lambda m: m.detokenize([5]),
    "n_vocab": lambda m: m.n_vocab(),
    "token_bos": lambda m: m.token_bos(),
    "n_ctx": lambda m: m.n_ctx(),
    "reset": lambda m: m.reset(),
    "eval": lambda m: m.eval([1]),
    "sample": lambda m: m.sample(),
    "generate": lambda m: next(m.generate([1, 2])),
    "stream": lambda m: next(m.stream([1, 2])),
    "score": lambda m: m.score([1, 2]),
    "last_logits": lambda m: m.last_logits(),
    "active_ids": lambda m: m.active_ids,
    "stats": lambda m: m.stats,
    "memory_report": lambda m: m.memory_report(),
    "audit_report": lambda m: m.audit_report(),
    "set_token_set": lambda m: m.set_token_set(None),
    "learned_token_set": lambda m: m.learned_token_set(),
    "save_state": lambda m: m.save_state(),
    "context": lambda m: m._ctx.n_ctx(),
    "tokenizer": lambda m: m.tokenizer().encode("x"),
}


@pytest.mark.parametrize("call", CALLS)
def test_after_closing_everything_says_so(ours: TailoredLlama, call: str) -> None:
    ours.eval([5, 6])
    ours.close()
    ours.close()
    with pytest.raises(VocabTailorError, match="closed"):
        CALLS[call](ours)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kv_overrides": {"a": [1]}}, "a"),
        ({"tensor_split": [1.0] * 999}, "split"),
        ({"type_k": 8, "type_v": 8}, "type_v"),
        ({"n_ctx": -1}, "n_ctx"),
    ],
    ids=str,
)
def test_an_arguments_fault_is_a_value_error(
    tiny_split: Callable[..., Any], options: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        TailoredLlama(tiny_split("llama").core, **{**COMMON, **options})
    assert not isinstance(caught.value, BadFileError)


def test_errors_are_the_built_in_ones_too(tiny_split: Callable[..., Any], tmp_path: Path) -> None:
    core = tiny_split("llama").core
    with pytest.raises(ValueError):
        TailoredLlama(tmp_path / "none.core.gguf", **COMMON)
    with pytest.raises(ValueError):
        TailoredLlama(core, token_set=TokenSet([1], tokenizer="0" * 64), **COMMON)
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm, pytest.raises(RuntimeError):
        llm.eval([5] * 300)
    assert issubclass(MismatchError, ValueError)
