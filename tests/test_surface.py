"""The rest of llama_cpp.Llama's surface, against stock."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import pickle
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, take

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.errors import MismatchError, UnsupportedError
from vocabtailor_gguf.runtime import rawcalls

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


def read_row(pointer: Any) -> np.ndarray:
    return np.ctypeslib.as_array(pointer, shape=(N_VOCAB,)).copy()


RAW: dict[str, Callable[[Any], Any]] = {
    "get_logits": lambda m: m._ctx.get_logits(),
    "get_logits_ith": lambda m: m._ctx.get_logits_ith(-1),
    "ith of the batch": lambda m: m._ctx.get_logits_ith(2),
    "llama_get_logits": lambda m: llama_cpp.llama_get_logits(m.ctx),
    "llama_get_logits_ith": lambda m: llama_cpp.llama_get_logits_ith(m.ctx, -1),
}


@pytest.mark.parametrize("how", RAW)
def test_raw_logits_are_the_whole_vocabularys(
    stock: llama_cpp.Llama, ours: TailoredLlama, how: str
) -> None:
    for llm in (stock, ours):
        llm.eval([5, 300, 301])
    assert read_row(RAW[how](ours)).tobytes() == read_row(RAW[how](stock)).tobytes()


def test_raw_logits_that_are_not_there(ours: TailoredLlama) -> None:
    ours.eval([5, 300, 301])
    for i in (0, 1, 3, -2):
        with pytest.raises(VocabTailorError, match="last output"):
            llama_cpp.llama_get_logits_ith(ours.ctx, i)
    chain = ours._init_sampler(temp=0.0)
    with pytest.raises(UnsupportedError, match="stub rows"):
        chain.sample(ours._ctx, -1)


def test_raw_logits_follow_the_text_through_drafts(
    stock: llama_cpp.Llama, tiny_split: Callable[..., Any]
) -> None:
    core = tiny_split("llama", n_vocab=N_VOCAB).core
    rows: list[list[bytes]] = []
    everything = TokenSet(range(N_VOCAB))  # drafts hold
    with contextlib.closing(TailoredLlama(core, token_set=everything, **COMMON)) as ours:
        for llm in (stock, ours):
            seen = []
            stream = llm.generate(PROMPTS[0], temp=0.0)
            for _ in range(40):
                next(stream)
                seen.append(read_row(llm._ctx.get_logits()).tobytes())
            stream.close()
            rows.append(seen)
        assert ours.stats.drafted > 20
    assert rows[0] == rows[1]


def test_contexts_of_others_are_left_alone(stock: llama_cpp.Llama, ours: TailoredLlama) -> None:
    stock.eval([5, 300, 301])
    expected = read_row(llama_cpp.llama_get_logits(stock.ctx))
    ours.eval([7])
    ours.close()
    assert np.array_equal(read_row(llama_cpp.llama_get_logits(stock.ctx)), expected)
    assert stock._init_sampler(temp=0.0).sample(stock._ctx, -1) == expected.argmax()


def test_a_model_may_be_collected_while_another_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def __init__(self, address: int) -> None:
            self.pointer = ctypes.c_void_p(address)
            self.itself = self  # so that only a collection of garbage finds it
            rawcalls.answer_for(self.pointer, self)

        def __del__(self) -> None:
            rawcalls.forget(self.pointer)

    address_of = rawcalls._address
    Model(1)
    monkeypatch.setattr(rawcalls, "_address", lambda p: (gc.collect(), address_of(p))[1])
    loading = threading.Thread(target=Model, args=(2,), daemon=True)
    loading.start()
    loading.join(60)
    assert not loading.is_alive()
    assert 1 not in rawcalls._stand_ins


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


def test_the_last_chain_goes_on_with_a_state(stock: llama_cpp.Llama, ours: TailoredLlama) -> None:
    found = []
    for llm in (stock, ours):
        llm.reset()
        llm.set_seed(3)
        stream = llm.generate(PROMPTS[0], temp=1.2)
        tokens = [next(stream) for _ in range(5)]
        state = llm.save_state()
        tokens += [next(stream) for _ in range(3)]
        stream.close()
        for text in ([7], [8, 300]):
            llm.load_state(state)
            llm.eval(text)
            for _ in range(4):
                tokens.append(llm.sample(temp=0.0))  # the temperature is the generation's
                llm.eval(tokens[-1:])
        found.append(tokens)
    assert found[0] == found[1]


def test_what_a_window_has_lost_is_decoded_anew(tiny: Any, tiny_split: Any) -> None:
    """A loaded state's old tokens are overwritten in a sliding window, full size or not."""
    text, other = list(range(200, 221)), [200, 201, 250]
    with contextlib.closing(llama_cpp.Llama(str(tiny("gemma3")), **COMMON)) as fresh:
        expected = take(fresh, other, 12, temp=0.0)
    with contextlib.closing(TailoredLlama(tiny_split("gemma3").core, **COMMON)) as llm:
        llm.eval(text)
        state = llm.save_state()
        for n in range(2, 5):
            llm.load_state(state)
            for token in text[:n]:
                llm.eval([token])
            stream = llm.generate(other, temp=0.0)
            assert [next(stream) for _ in range(12)] == expected
            stream.close()


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


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_caches(stock: llama_cpp.Llama, ours: TailoredLlama, tmp_path: Path, kind: str) -> None:
    found = []
    for i, llm in enumerate((stock, ours)):
        on_disk = kind == "disk"
        folder = str(tmp_path / str(i))
        llm.set_cache(llama_cpp.LlamaDiskCache(folder) if on_disk else llama_cpp.LlamaRAMCache())
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
            assert np.array_equal(again.active_ids, ours.active_ids)
            assert again.n_ctx() == ours.n_ctx()
            assert take(again, PROMPTS[0], 12, temp=0.0) == expected


def tokens_of_the_pointer(llm: llama_cpp.Llama) -> list[int]:
    vocab = llama_cpp.llama_model_get_vocab(llama_cpp.llama_get_model(llm.ctx))
    found = (llama_cpp.llama_token * 64)()
    n = llama_cpp.llama_tokenize(vocab, b"the cat", 7, found, 64, True, False)
    return [llama_cpp.llama_vocab_n_tokens(vocab), *found[:n]]


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
    "parameters of the pointer": lambda m: llama_cpp.llama_model_n_params(m.model),
    "size of the pointer": lambda m: llama_cpp.llama_model_size(m.model),
    "template of the pointer": lambda m: llama_cpp.llama_model_chat_template(m.model, None),
    "no such template": lambda m: llama_cpp.llama_model_chat_template(m.model, b"x"),
    "vocabulary of the pointer": lambda m: tokens_of_the_pointer(m),
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
    "load_ms": lambda m: m.load_ms,
    "audit_report": lambda m: m.audit_report(),
    "set_token_set": lambda m: m.set_token_set(None),
    "learned_token_set": lambda m: m.learned_token_set(),
    "save_state": lambda m: m.save_state(),
    "context": lambda m: m._ctx.n_ctx(),
    "tokenizer": lambda m: m.tokenizer().encode("x"),
    "store": lambda m: m.store.n_vocab,
    "ctx": lambda m: m.ctx,
    "model": lambda m: m.model,
    "embed": lambda m: m.embed("x"),
    "batch": lambda m: m._batch,
}


@pytest.mark.parametrize("call", CALLS)
def test_after_closing_everything_says_so(ours: TailoredLlama, call: str) -> None:
    ours.eval([5, 6])
    ours.close()
    ours.close()
    with pytest.raises(VocabTailorError, match="closed"):
        CALLS[call](ours)


def test_parts_that_outlive_the_model_say_so(ours: TailoredLlama) -> None:
    ours.eval([5, 6])
    tokenizer, context, model = ours.tokenizer(), ours._ctx, ours._model
    ours.close()
    for call in (
        lambda: tokenizer.encode("x"),
        lambda: context.n_ctx(),
        lambda: context.get_logits(),
        lambda: context.decode(types.SimpleNamespace(batch=None)),
        lambda: model.token_bos(),
        lambda: model.n_embd(),
    ):
        with pytest.raises(VocabTailorError, match="closed"):
            call()


def test_errors_are_the_built_in_ones_too(tiny_split: Callable[..., Any], tmp_path: Path) -> None:
    core = tiny_split("llama").core
    with pytest.raises(ValueError):
        TailoredLlama(tmp_path / "none.core.gguf", **COMMON)
    known = dict(rawcalls._stand_ins)
    with pytest.raises(ValueError) as refused:
        TailoredLlama(core, token_set=TokenSet([1], tokenizer="0" * 64), **COMMON)
    assert refused.tb is not None  # keeps the model, which answers for its freed pointers no more
    assert dict(rawcalls._stand_ins) == known
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm, pytest.raises(RuntimeError):
        llm.eval([5] * 300)
    assert issubclass(MismatchError, ValueError)


def test_texts_are_tokenised_in_one_pass(
    ours: TailoredLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    tokenize = llama_cpp.llama_cpp.llama_tokenize

    def count(*args: Any) -> Any:
        passes.append(len(args))
        return tokenize(*args)

    monkeypatch.setattr(llama_cpp.llama_cpp, "llama_tokenize", count)
    ours.tokenize(b"the cat sat on the mat")
    assert len(passes) == 1
    ours.create_completion("the cat", max_tokens=1)
    assert len(passes) == 2


def test_a_prompt_that_is_too_long_says_what_stock_says(
    stock: llama_cpp.Llama, ours: TailoredLlama
) -> None:
    said = []
    for llm in (stock, ours):
        with pytest.raises(ValueError) as caught:
            llm.create_completion([5] * 300)
        said.append(str(caught.value))
    assert said[0] == said[1]


class Repeater(llama_cpp.llama_speculative.LlamaDraftModel):  # type: ignore[misc]
    """Drafts of tokens that were there before."""

    def __call__(self, input_ids: Any, /, **kwargs: Any) -> Any:
        return np.asarray(input_ids[-3:], dtype=np.intc)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_draft_models_change_no_text(
    stock: llama_cpp.Llama, tiny_split: Callable[..., Any], temperature: float
) -> None:
    core = tiny_split("llama", n_vocab=N_VOCAB).core
    lookup = llama_cpp.llama_speculative.LlamaPromptLookupDecoding(num_pred_tokens=2)
    asked: dict[str, Any] = {"max_tokens": 40, "temperature": temperature, "seed": 3}
    expected = stock.create_completion(PROMPTS[0], **asked)["choices"]
    for draft_model in (lookup, Repeater()):
        with contextlib.closing(TailoredLlama(core, draft_model=draft_model, **COMMON)) as ours:
            assert ours.draft_model is draft_model
            assert ours.create_completion(PROMPTS[0], **asked)["choices"] == expected


@pytest.mark.parametrize("which", ["core", "model"])
def test_only_a_vocabulary(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any], which: str
) -> None:
    path = tiny("llama") if which == "model" else tiny_split("llama").core
    stock = llama_cpp.Llama(str(tiny("llama")), vocab_only=True, **COMMON)
    ours = TailoredLlama(path, vocab_only=True, **COMMON)
    for ask in (
        lambda m: m.tokenize(b"the cat"),
        lambda m: m.detokenize([300, 301]),
        lambda m: m.n_vocab(),
        lambda m: m.n_ctx(),
        lambda m: m.token_eos(),
        lambda m: dict(m.metadata),
    ):
        assert ask(ours) == ask(stock)
    assert bool(ours.split_metadata) == (which == "core")
    for refused in (lambda: ours.eval([5]), lambda: next(ours.generate([5])), ours.last_logits):
        with pytest.raises(VocabTailorError, match="vocab_only"):
            refused()
    again = pickle.loads(pickle.dumps(ours))
    assert again.tokenize(b"the cat") == stock.tokenize(b"the cat")
    for llm in (ours, again):
        llm.close()
        llm.close()
        with pytest.raises(VocabTailorError, match="closed"):
            llm.tokenize(b"x")
    stock.close()


@pytest.mark.parametrize("threads", [{"n_threads": -1}, {"n_threads": -1, "n_threads_batch": -1}])
def test_threads_that_ggml_chooses(
    stock: llama_cpp.Llama, tiny_split: Callable[..., Any], threads: dict[str, int]
) -> None:
    expected = take(stock, PROMPTS[0], 12, temp=0.0)
    core = tiny_split("llama", n_vocab=N_VOCAB).core
    with contextlib.closing(TailoredLlama(core, **{**COMMON, **threads})) as ours:
        assert ours.n_threads == -1
        assert take(ours, PROMPTS[0], 12, temp=0.0) == expected


@pytest.mark.model
def test_facts_of_a_real_model(gemma: Path, gemma_split: Any) -> None:
    stock = llama_cpp.Llama(str(gemma), **COMMON)
    with contextlib.closing(TailoredLlama(gemma_split.core, **COMMON)) as ours:
        for fact in FACTS.values():
            assert fact(ours) == fact(stock)
        text = ("The quick brown fox jumps over the lazy dog. " * 50).encode()
        assert ours.tokenize(text) == stock.tokenize(text)
    stock.close()
