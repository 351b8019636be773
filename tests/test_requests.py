"""Requests on one text: what follows what, and what the end of one leaves to another."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, SAMPLINGS, Pair, take

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.errors import SupersededError
from vocabtailor_gguf.runtime import rawcalls
from vocabtailor_gguf.runtime.request import Request
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.runtime.steps import Sampling

MODES = ("exact", "tailored", "full")
BIASED = {"logit_bias": {1500: 50.0, 1839: 50.0}, "top_k": 2}
SAMPLED = {"temp": 1.2, "top_k": 40, "repeat_penalty": 1.3, "frequency_penalty": 0.4}


@pytest.fixture(params=MODES)
def llm(request: pytest.FixtureRequest, tiny_split: Callable[..., Any]) -> Iterator[TailoredLlama]:
    core = tiny_split("llama", n_vocab=2048).core
    chosen = TokenSet(range(300, 800))
    with contextlib.closing(
        TailoredLlama(core, mode=request.param, token_set=chosen, **COMMON)
    ) as model:
        yield model


@pytest.mark.parametrize("how", ["closed", "collected"])
@pytest.mark.parametrize("sampling", [{"temp": 0.0}, SAMPLED], ids=["greedy", "sampled"])
def test_the_end_of_one_request_leaves_the_next_alone(
    llm: TailoredLlama, how: str, sampling: dict[str, Any]
) -> None:
    expected = take(llm, PROMPTS[1], 60, **sampling)
    llm.reset()
    llm.set_seed(1)
    first = llm.generate([5, 900, 901], reset=True, **sampling)
    for _ in range(7):
        next(first)
    second = llm.generate(PROMPTS[1], reset=True, **sampling)
    found = [next(second) for _ in range(20)]
    rows = llm.active_ids
    if how == "closed":
        first.close()
    else:
        holder: list[Any] = [first]
        holder.append(holder)  # a cycle: only the collector frees it
        del first, holder
        gc.collect()
    assert np.array_equal(llm.active_ids, rows)
    found += [next(second) for _ in range(40)]
    second.close()
    assert found == expected


def test_a_superseded_request_says_so(llm: TailoredLlama) -> None:
    first = llm.generate(PROMPTS[0], temp=0.0)
    next(first)
    second = llm.generate(PROMPTS[1], temp=0.0)
    next(second)
    with pytest.raises(SupersededError, match="another request"):
        next(first)
    assert [next(second) for _ in range(5)] == take(llm, PROMPTS[1], 6, temp=0.0)[1:]


@pytest.mark.parametrize("change", ["eval", "reset", "n_tokens"])
def test_a_text_that_was_changed_ends_the_request(llm: TailoredLlama, change: str) -> None:
    stream = llm.generate(PROMPTS[0], temp=0.0)
    for _ in range(3):
        next(stream)
    if change == "eval":
        llm.eval([700])
    elif change == "reset":
        llm.reset()
    else:
        llm.n_tokens = 2
    with pytest.raises(SupersededError, match="changed"):
        next(stream)
    assert len(take(llm, PROMPTS[0], 4, temp=0.0)) == 4


def test_a_refused_request_supersedes_nothing(llm: TailoredLlama) -> None:
    expected = take(llm, PROMPTS[0], 12, temp=0.0)
    llm.reset()
    stream = llm.generate(PROMPTS[0], temp=0.0)
    found = [next(stream) for _ in range(4)]
    for bad in ([-1], [10**6], [1.5]):
        with pytest.raises(VocabTailorError):
            next(llm.generate(bad, temp=0.0))  # type: ignore[arg-type]
    found += [next(stream) for _ in range(8)]
    assert found == expected


@pytest.mark.parametrize("sampling", ["greedy", "default", "penalties", "rewards", "plain draw"])
def test_broken_off_repeated_continued(pair: Callable[..., Pair], sampling: str) -> None:
    """Any way to go on after a stream that was broken off gives stock's tokens."""
    both = pair("llama", {"n_vocab": 2048})
    asked = SAMPLINGS[sampling]

    def ask(model: llama_cpp.Llama, prompt: list[int], n: int) -> list[int]:
        stream = model.generate(prompt, **asked)
        tokens = [next(stream) for _ in range(n)]
        stream.close()
        return tokens

    found = []
    for model in (both.stock, both.exact):
        model.reset()
        model.set_seed(4)
        tokens = [ask(model, PROMPTS[0], n) for n in (1, 1, 9, 1, 3)]  # the same prompt again
        text = [*PROMPTS[0], *tokens[2]]
        tokens.append(ask(model, text, 5))  # continued
        tokens.append(ask(model, text[:-4], 5))  # forked
        tokens.append(ask(model, PROMPTS[1], 5))  # another one
        model.eval([500, 501])
        tokens.append([model.sample() for _ in range(3)])  # the last chain goes on
        found.append(tokens)
    assert found[0] == found[1]


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("asked", [{}, BIASED], ids=["", "bias"])
@pytest.mark.parametrize("mode", ["exact", "full"])
def test_sampling_after_a_completion_goes_on_with_its_chain(
    pair: Callable[..., Pair], mode: Any, asked: dict[str, Any], n: int
) -> None:
    both = pair("llama", {"n_vocab": 2048})
    both.exact.set_mode(mode)
    found = []
    for model in (both.stock, both.exact):
        model.create_completion([5, 300], max_tokens=n, temperature=1.1, seed=3, **asked)
        tokens = []
        for _ in range(12):
            tokens.append(model.sample(temp=0.0))  # the temperature is the completion's
            model.eval(tokens[-1:])
        found.append(tokens)
    assert found[0] == found[1]
    assert not asked or {1500, 1839} == set(found[0])


def test_a_bias_goes_on_in_tailored_mode(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    both.exact.set_mode("tailored")
    found = []
    for model in (both.stock, both.exact):
        model.create_completion([5, 300], max_tokens=1, temperature=1.1, seed=3, **BIASED)
        tokens = []
        for _ in range(12):
            tokens.append(model.sample())
            model.eval(tokens[-1:])
        found.append(tokens)
    assert found[0] == found[1]  # the bias leaves nothing but its two tokens
    assert {1500, 1839} == set(found[0])


def test_a_text_that_goes_on_keeps_its_tokens_active(tiny_split: Callable[..., Any]) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    asked: dict[str, Any] = {"mode": "tailored", "prompt_expansion": False, **COMMON}
    with contextlib.closing(TailoredLlama(core, **asked)) as llm:
        static = llm.active_ids
        text = [1500, 1600, 1700]
        llm.eval(text)
        stream = llm.generate([1800], reset=False, temp=0.0)
        next(stream)
        assert llm.active_ids.tolist() == [*static, *text, 1800]
        stream.close()
        assert np.array_equal(llm.active_ids, static)


def test_a_second_thread_waits(tiny_split: Callable[..., Any]) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm:
        stop = threading.Event()
        seen: list[int] = []

        def read() -> None:
            while not stop.is_set():
                seen.append(llm.active_ids.size)
                llm.audit_report()
                seen.append(len(llm.learned_token_set(least=0).ids) if llm.stats.rejected else 0)

        reader = threading.Thread(target=read)
        expected = take(llm, PROMPTS[0], 100, temp=1.0)
        reader.start()
        try:
            found = take(llm, PROMPTS[0], 100, temp=1.0)
        finally:
            stop.set()
            reader.join()
        assert found == expected
        assert seen


def test_exact_mode_is_metered(tiny_split: Callable[..., Any]) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm:
        take(llm, PROMPTS[0], 60, temp=0.0)
        stats = llm.stats
        assert stats.ms_head > 0 and stats.ms_sample > 0 and stats.ms_verify > 0
        assert stats.ms >= stats.ms_core + stats.ms_head + stats.ms_sample
        assert stats.drafted > 0


def test_steps_carry_text_and_where_they_come_from(tiny_split: Callable[..., Any]) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm:
        prompt = llm.tokenize(b"the cat")
        stream = llm.stream(prompt, max_tokens=20, temp=0.0)
        steps = list(stream)
        assert [s.token for s in steps] == take(llm, prompt, 20, temp=0.0)[: len(steps)]
        text = llm.detokenize([s.token for s in steps]).decode("utf-8", "replace")
        assert "".join(s.text for s in steps) + stream.rest == text
        assert any(s.from_draft for s in steps)
        took = stream.timings
        assert (took.n_prompt, took.n_tokens) == (len(prompt), len(steps))
        assert took.prompt_ms > 0 and took.tokens_per_second > 0
        assert list(llm.stream(prompt, max_tokens=0)) == []


def test_a_request_is_left_once(tiny_split: Callable[..., Any]) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm:
        session = llm._session
        assert session is not None
        prompt = np.array(PROMPTS[0], dtype=np.int32)
        first = Request(session, Sampling(llm._init_sampler(temp=0.0)), prompt)
        first.close()
        first.close()
        with pytest.raises(SupersededError):
            first.step()
        with Request(session, Sampling(llm._init_sampler(temp=0.0), budget=2), prompt) as second:
            assert second.left == 2
            token = second.step().token
            assert second.left == 1
            second.feed(np.array([token], dtype=np.int32))
            with pytest.raises(SupersededError):
                first.feed(prompt)


def test_exact_mode_drafts_with_frequent_tokens(tiny_split: Callable[..., Any]) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    with (
        contextlib.closing(TailoredLlama(core, **COMMON)) as exact,
        contextlib.closing(TailoredLlama(core, mode="tailored", **COMMON)) as tailored,
    ):
        guessed = np.setdiff1d(exact.active_ids, tailored.active_ids)
        vocab = exact._model.vocab
        normal = [
            t
            for t in range(2048)
            if llama_cpp.llama_vocab_get_attr(vocab, t) & llama_cpp.LLAMA_TOKEN_ATTR_NORMAL
        ]
        assert set(guessed.tolist()) <= set(normal[: 2048 // 12])
        assert guessed.size > 50
        exact.set_token_set(TokenSet([1999]))  # a set of the user's own stands for itself
        assert np.array_equal(np.setdiff1d(exact.active_ids, tailored.active_ids), [1999])
        exact.set_token_set(None)
        assert set(guessed.tolist()) <= set(exact.active_ids.tolist())


def test_two_sessions_of_one_engine(
    tiny: Callable[..., Any], tiny_split: Callable[..., Any]
) -> None:
    """Static rows, weights and the whole head are shared; texts take turns and are stock's."""
    stock = llama_cpp.Llama(str(tiny("llama", n_vocab=2048)), **COMMON)
    expected = [take(stock, p, 40, temp=1.0, seed=s) for p, s in zip(PROMPTS, (3, 4), strict=True)]
    with contextlib.closing(TailoredLlama(tiny_split("llama", n_vocab=2048).core, **COMMON)) as llm:
        one = llm._session
        assert one is not None
        two = Session(llm._engine, llm.context_params, exact=True, share=one)
        assert np.array_equal(one.active_ids(), two.active_ids())
        held = one.head.n_bytes
        requests = []
        for session, prompt, seed in zip((one, two), PROMPTS, (3, 4), strict=True):
            llm.set_seed(seed)
            chain = llm._init_sampler(temp=1.0)
            requests.append(Request(session, Sampling(chain), np.array(prompt, dtype=np.int32)))
        found: list[list[int]] = [[], []]
        for _ in range(40):
            for request, tokens in zip(requests, found, strict=True):
                tokens.append(request.step().token)
                request.feed(np.array(tokens[-1:], dtype=np.int32))
        assert found == expected
        for request in requests:
            request.close()
        two.set_static(np.array([5, 6, 7], dtype=np.int32))  # its own from here on
        assert two.active_ids().size < one.active_ids().size
        assert one.head.n_bytes >= held
        two.close()
        assert take(llm, PROMPTS[0], 40, temp=1.0, seed=3) == expected[0]
    stock.close()


def test_forks_generate_side_by_side(tiny: Any, tiny_split: Any) -> None:
    """Two texts over one engine, in turns and in two threads, give stock's tokens."""
    core = tiny_split("llama-tied").core
    stock = llama_cpp.Llama(str(tiny("llama-tied")), **COMMON)
    samplings: list[dict[str, Any]] = [{"temp": 0.0}, {"temp": 0.9}]
    expected = [take(stock, list(p), 40, **s) for p, s in zip(PROMPTS, samplings, strict=True)]
    stock.close()
    llm = TailoredLlama(core, **COMMON)
    texts = [llm, llm.fork()]
    assert np.array_equal(llm.active_ids, texts[1].active_ids)
    streams = []
    for text, prompt, sampling in zip(texts, PROMPTS, samplings, strict=True):
        text.set_seed(1)
        streams.append(text.generate(list(prompt), **sampling))
    found: list[list[int]] = [[], []]
    for _ in range(40):
        for tokens, stream in zip(found, streams, strict=True):
            tokens.append(next(stream))
    assert found == expected
    for stream in streams:
        stream.close()
    with ThreadPoolExecutor(2) as threads:
        again = [
            threads.submit(take, text, list(prompt), 40, **sampling)
            for text, prompt, sampling in zip(texts, PROMPTS, samplings, strict=True)
        ]
        assert [a.result() for a in again] == expected
    texts[1].set_token_set(TokenSet(range(300, 320), llm.store.tokenizer_sha256))
    assert len(texts[1].active_ids) > len(llm.active_ids)
    llm.close()
    with pytest.raises(VocabTailorError, match="closed"):
        texts[1].eval([5])


def test_a_fork_keeps_its_engine_and_ends_alone(tiny_split: Any) -> None:
    llm = TailoredLlama(tiny_split("llama-tied").core, **COMMON)
    fork = llm.fork()
    other = fork.fork()
    fork.close()
    with pytest.raises(VocabTailorError, match="closed"):
        other.eval([5])
    llm.eval([5, 6])
    left = llm.fork()
    del llm
    left.eval([5, 6])
    left.close()


def test_modes_take_turns_on_one_text(
    tiny: Any, tiny_split: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact and full mode are stock's whatever was before; the text stays, and its beginning."""

    def fails(self: Session, ids: Any) -> None:
        raise MemoryError

    core = tiny_split("llama", n_vocab=2048).core
    stock = llama_cpp.Llama(str(tiny("llama", n_vocab=2048)), **COMMON)
    llm = TailoredLlama(core, token_set=TokenSet(range(300, 400)), **COMMON)
    known = list(PROMPTS[0])
    for mode in ("full", "exact", "tailored", "exact", "tailored", "full"):
        llm.set_mode(mode)
        assert llm.mode == mode
        assert (len(llm.active_ids) == 2048) == (mode == "full")
        out = []
        for model in (stock, llm):
            model.set_seed(4)
            # the first tokens of the prompt are what the text begins with
            out.append(list(itertools.islice(model.generate(known, temp=0.9), 24)))
        if mode == "tailored":
            assert set(out[1]) <= set(llm.active_ids.tolist()) | set(known)
            stock.reset()
            llm.reset()
            known = known[:-1]
        else:
            assert out[0] == out[1]
            known += out[0][:8]
    llm.set_mode("tailored", audit=1.0)
    list(itertools.islice(llm.generate(known, temp=0.0), 8))
    assert llm.audit_report().audited == 8
    for mode, audit in (("none", 0.0), ("exact", 0.5), ("tailored", 2.0)):
        with pytest.raises(ValueError, match="mode"):
            llm.set_mode(mode, audit=audit)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="learn"):
        llm.set_mode("full", learn=True)
    rows = llm.active_ids
    with monkeypatch.context() as patched:
        patched.setattr(Session, "set_static", fails)
        with pytest.raises(MemoryError):
            llm.set_mode("full")
    assert (llm.mode, llm.audit_report().audited) == ("tailored", 8)
    assert np.array_equal(llm.active_ids, rows)
    live = llm.generate(known, temp=0.0)
    next(live)
    llm.set_mode("full")
    with pytest.raises(SupersededError):
        next(live)
    assert llm.fork().mode == "full"
    llm.close()
    stock.close()


@pytest.mark.parametrize("pooling_type", [-2, 5, "mean"])
def test_a_fork_that_is_refused_changes_nothing(tiny_split: Any, pooling_type: Any) -> None:
    with contextlib.closing(TailoredLlama(tiny_split("llama").core, **COMMON)) as llm:
        llm.eval([5, 6])
        known = dict(rawcalls._stand_ins)
        with pytest.raises(ValueError, match="pooling_type"):
            llm.fork(pooling_type=pooling_type)
        assert dict(rawcalls._stand_ins) == known and not llm._forks
        llm.eval([7])


def test_a_text_that_cannot_be_made_leaves_no_context(
    tiny_split: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while somebody keeps the exception, and beyond the end of the model."""

    def full(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError("no room")

    with contextlib.closing(TailoredLlama(tiny_split("llama").core, **COMMON)) as llm:
        known = dict(rawcalls._stand_ins)
        monkeypatch.setattr("vocabtailor_gguf.runtime.session.Verifier", full)
        with pytest.raises(MemoryError) as refused:
            llm.fork()
        monkeypatch.undo()
        frames = [frame for frame, _ in traceback.walk_tb(refused.tb)]
        owners = [frame.f_locals.get("self") for frame in frames]
        half = next(one for one in owners if isinstance(one, Session))
        assert not half.is_open and half.context.ctx is None
        assert dict(rawcalls._stand_ins) == known
        llm.eval([5, 6])
