"""Exact mode from token to token: interruptions, forced tokens, learning, audits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, SAMPLINGS, Pair, take

from vocabtailor_gguf import TailoredLlama, TokenSet
from vocabtailor_gguf.errors import TokenIdError, VocabTailorError


def test_a_set_and_the_context_end(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048}, token_set=TokenSet(range(300, 1500)), n_ctx=64)
    tokens = []
    for llm in (both.stock, both.exact):
        out = llm.create_completion([5, 300, 301], max_tokens=-1, temperature=0.0)
        tokens.append((out["choices"], out["usage"]))
    assert tokens[0] == tokens[1]


def test_a_short_window_is_never_rolled_back(pair: Callable[..., Pair]) -> None:
    both = pair("gemma3", {"n_vocab": 2048}, swa_full=False)
    assert take(both.exact, PROMPTS[0], 80, temp=0.0) == take(both.stock, PROMPTS[0], 80, temp=0.0)
    stats = both.exact._session.verifier.stats()
    assert stats.n_drafted == stats.n_blocks > 0  # one token a block


@pytest.mark.parametrize("sampling", ["greedy", "default", "plain draw"])
def test_a_state_is_never_rolled_back(pair: Callable[..., Pair], sampling: str) -> None:
    both = pair("mamba", {"n_vocab": 2048})
    for prompt in (*PROMPTS, PROMPTS[0]):
        asked = SAMPLINGS[sampling]
        assert take(both.exact, prompt, 80, **asked) == take(both.stock, prompt, 80, **asked)
    stats = both.exact._session.verifier.stats()
    assert stats.n_drafted == stats.n_blocks
    assert (stats.n_blocks > 0) == (sampling != "plain draw")


def test_every_state_in_a_block_is_stocks(pair: Callable[..., Pair]) -> None:
    """Interrupted anywhere, text, logits and what follows are as if nothing had been drafted."""
    both = pair("llama", {"n_vocab": 2048})
    for n in range(1, 24):
        streams = [llm.generate(PROMPTS[0], temp=0.0) for llm in (both.stock, both.exact)]
        for _ in range(n):
            assert next(streams[0]) == next(streams[1])
            assert both.exact.n_tokens == both.stock.n_tokens
            found, logits = both.exact.last_logits()
            raw = both.stock._ctx.get_logits_ith(-1)
            expected = np.ctypeslib.as_array(raw, shape=(2048,))[found]
            assert np.array_equal(logits, expected)
        for stream in streams:
            stream.close()
        # a prompt that goes on from here reuses what was decoded
        text = both.stock._input_ids.tolist()
        assert both.exact._input_ids.tolist() == text
        tokens = []
        for llm in (both.stock, both.exact):
            stream = llm.generate([*text, 450, 460], temp=0.0)
            tokens.append([next(stream) for _ in range(12)])
            stream.close()
            llm.reset()
        assert tokens[0] == tokens[1]


def test_tokens_can_be_forced_between(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    found = []
    for llm in (both.stock, both.exact):
        llm.set_seed(8)
        llm.eval(PROMPTS[0])
        llm._sampler = llm._init_sampler(temp=1.0, top_k=30, repeat_penalty=1.3)
        tokens = []
        for i in range(60):
            tokens.append(llm.sample())
            llm.eval([500 + i] if i % 7 == 3 else tokens[-1:])
        llm._sampler = None
        found.append(tokens)
    assert found[0] == found[1]


def test_single_samples(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    for llm in (both.stock, both.exact):
        llm.reset()
        llm.eval(PROMPTS[0])
    for _ in range(20):
        tokens = [llm.sample(temp=0.0) for llm in (both.stock, both.exact)]
        assert tokens[0] == tokens[1]
        both.stock.eval(tokens[:1])
        both.exact.eval(tokens[:1])


def test_stop_strings_while_streaming(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    whole = both.stock.create_completion("the", max_tokens=80, temperature=0.0)
    text = whole["choices"][0]["text"]
    for place in range(4, min(60, len(text) - 3), 7):
        stop = text[place : place + 3]
        asked: dict[str, Any] = {"max_tokens": 80, "temperature": 0.0, "stop": [stop]}
        chunks = []
        for llm in (both.stock, both.exact):
            stream = llm.create_completion("the", stream=True, **asked)
            chunks.append([c["choices"] for c in stream])
        assert chunks[0] == chunks[1]


def test_learning_from_use(tiny: Any, tiny_split: Any) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    with contextlib.closing(TailoredLlama(core, mode="exact", **COMMON)) as llm:
        with pytest.raises(VocabTailorError, match="nothing was learned"):
            llm.learned_token_set()
        text = take(llm, PROMPTS[0], 60, temp=0.0)
        n_static = llm.active_ids.size
        first = llm.learned_token_set()
        static = set(llm.active_ids.tolist())
        # prompt and always-on tokens are active anyway
        assert set(first.ids.tolist()) == set(text) - static - set(PROMPTS[0])
        counts = first.provenance["learned"]
        assert all(1 <= counts[str(t)] <= text.count(t) for t in first.ids.tolist())
        assert llm.active_ids.size == n_static
        llm.set_token_set(first)
        before = llm.stats.rejected
        assert take(llm, PROMPTS[0], 60, temp=0.0) == text
        # at most the draft beyond the last token is rejected
        assert llm.stats.rejected - before <= 1 < before
        # used again, each token counts again, and once only
        again = llm.learned_token_set()
        assert again.provenance["learned"] == {
            str(t): n + text.count(int(t)) for t, n in counts.items()
        }
        llm.set_token_set(again)
        assert llm.learned_token_set().provenance == again.provenance
    with contextlib.closing(TailoredLlama(core, mode="exact", token_set=first, **COMMON)) as llm:
        half = llm.learned_token_set(decay=0.5, least=0.0)
        assert half.provenance["learned"] == {t: n / 2 for t, n in counts.items()}
        kept = llm.learned_token_set(decay=0.5, least=1.0).ids
        assert kept.tolist() == [int(t) for t, n in counts.items() if n >= 2]
        with pytest.raises(VocabTailorError, match="decay"):
            llm.learned_token_set(decay=2.0)
    for options in ({"learn": True, "mode": "tailored"}, {"learn": True, "mode": "full"}):
        with pytest.raises(ValueError, match="learn"):
            TailoredLlama(core, **options, **COMMON)


def test_learned_tokens_stay_for_the_next_request(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048}, learn=True)
    rejected = []
    for _ in range(2):
        expected = take(both.stock, PROMPTS[0], 60, temp=0.0)
        assert take(both.exact, PROMPTS[0], 60, temp=0.0) == expected
        rejected.append(both.exact.stats.rejected)
    # at most the draft beyond the last token is rejected
    assert rejected[1] - rejected[0] <= 1 < rejected[0]


def test_audits_count_what_was_learned(tiny_split: Any) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    asked: dict[str, Any] = {"mode": "tailored", "audit": 1.0, "learn": True}
    with contextlib.closing(TailoredLlama(core, **asked, **COMMON)) as llm:
        take(llm, PROMPTS[0], 40, temp=0.0)
        first = llm.audit_report()
        learned = llm.learned_token_set().provenance["learned"]
        assert {int(t): n for t, n in learned.items()} == first.tokens
        text = take(llm, PROMPTS[0], 40, temp=0.0)
        again = llm.learned_token_set().provenance["learned"]
        grown = {t: n - learned.get(t, 0) for t, n in again.items() if int(t) in first.tokens}
        # where the whole vocabulary wanted something else, the text's token was not needed
        assert all(0 <= n <= text.count(int(t)) for t, n in grown.items())
        assert sum(grown.values()) > 0
        report = llm.audit_report()
        assert report.outside == sum(report.tokens.values())


def test_a_bad_learned_set_changes_nothing(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    active = both.exact.active_ids
    bad = TokenSet([400], None, {"learned": {"99999": 1}})
    with pytest.raises(TokenIdError):
        both.exact.set_token_set(bad)
    assert both.exact.token_set is None
    assert np.array_equal(both.exact.active_ids, active)


def test_nothing_is_drafted_beyond_the_end(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048}, learn=True)
    end = both.stock.token_eos()
    asked: dict[str, Any] = {"max_tokens": 200, "temperature": 0.0, "logit_bias": {end: 3.5}}
    prompt = "the"
    for _ in range(8):  # blocks grow
        outs = [llm.create_completion(prompt, **asked) for llm in (both.stock, both.exact)]
        assert outs[0]["choices"] == outs[1]["choices"]
    stats = both.exact._session.verifier.stats()
    before = (stats.n_drafted, stats.n_rejected)
    out = both.exact.create_completion(prompt, **asked)
    assert out["choices"][0]["finish_reason"] == "stop"
    n = out["usage"]["completion_tokens"]
    stats = both.exact._session.verifier.stats()
    assert stats.n_rejected == before[1]
    assert stats.n_drafted - before[0] <= n + 1  # the end itself


@pytest.mark.parametrize("sampling", ["greedy", "default", "plain draw", "penalties"])
def test_audits_know_the_whole_vocabularys_choice(tiny_split: Any, sampling: str) -> None:
    core = tiny_split("llama", n_vocab=2048).core
    asked = SAMPLINGS[sampling]
    with (
        contextlib.closing(TailoredLlama(core, mode="tailored", audit=1.0, **COMMON)) as llm,
        contextlib.closing(TailoredLlama(core, mode="full", **COMMON)) as full,
        contextlib.closing(TailoredLlama(core, mode="tailored", **COMMON)) as alone,
    ):
        text = take(llm, PROMPTS[0], 60, **asked)
        assert text == take(alone, PROMPTS[0], 60, **asked)  # an audit changes nothing
        found = llm.audit_report()
        # the same text again, step by step, with the whole vocabulary's choice at each
        outside: list[int] = []
        full.set_seed(1)
        full.reset()
        full.eval(PROMPTS[0])
        chain = full._init_sampler(**asked)
        active = {*alone.active_ids.tolist(), *PROMPTS[0], *alone._session.forms.find(PROMPTS[0])}
        for token in text:
            clone = llama_cpp.llama_sampler_clone(chain.sampler)
            choice = full._session.native.sample(clone, full._session.native.n_outputs - 1)
            llama_cpp.llama_sampler_free(clone)
            if choice not in active:
                outside.append(choice)
            # the tailored chain draws and accepts at every step, so this one must, too
            follow(chain.sampler, token)
            full.eval([token])
        assert (found.audited, found.outside) == (60, len(outside))
        assert found.tokens == {t: outside.count(t) for t in outside}
        assert found.rate == len(outside) / 60
    with pytest.raises(ValueError, match="audit"):
        TailoredLlama(core, mode="full", audit=0.5, **COMMON)


def follow(chain: Any, token: int) -> None:
    """Make a chain draw once, and accept a token."""
    one = (llama_cpp.llama_token_data * 1)(llama_cpp.llama_token_data(token, 1.0, 0.0))
    array = llama_cpp.llama_token_data_array(one, 1, -1, False)
    llama_cpp.llama_sampler_apply(chain, llama_cpp.ctypes.byref(array))
    llama_cpp.llama_sampler_accept(chain, token)
