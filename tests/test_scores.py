"""Scores, logprobs and scoring against stock llama_cpp.Llama with logits_all=True."""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.runtime.scores import Scores

COMMON: dict[str, Any] = {"n_ctx": 256, "n_threads": 2, "n_threads_batch": 2, "verbose": False}
SMALL_BATCHES: dict[str, Any] = {**COMMON, "n_batch": 48, "n_ubatch": 20}
TINY = ("llama-tied", "gemma3", "gemma2", "command-r", "phi2")
REAL = [pytest.param(name, marks=pytest.mark.model) for name in ("gemma", "smollm2")]
PROMPTS = ("Rome is", "The sea, the sun", "a b c a b c a", "")
# streamed or not, echo, best tokens
ASKED = list(itertools.product((False, True), (False, True), (0, 3)))


class Trio:
    """Stock with all logits, and a split model in each mode."""

    def __init__(self, path: Path, core: Path, **options: Any) -> None:
        self.stock = llama_cpp.Llama(str(path), logits_all=True, **options)
        self.full = TailoredLlama(core, mode="full", logits_all=True, **options)
        self.exact = TailoredLlama(core, mode="exact", logits_all=True, **options)
        rng = np.random.default_rng(3)
        n = self.stock.n_vocab()
        self.tailored = TailoredLlama(
            core,
            mode="tailored",
            logits_all=True,
            token_set=TokenSet(rng.choice(n, n // 3, replace=False)),
            **options,
        )
        self.all = (self.full, self.exact, self.tailored)

    def close(self) -> None:
        for llm in (self.stock, *self.all):
            llm.close()


@pytest.fixture(scope="module", params=[*TINY, *REAL])
def trio(request: pytest.FixtureRequest) -> Iterator[Trio]:
    """Tiny models and both real ones."""
    if request.param in TINY:
        path = request.getfixturevalue("tiny")(request.param)
        core = request.getfixturevalue("tiny_split")(request.param).core
    else:
        path = request.getfixturevalue(request.param)
        core = request.getfixturevalue(f"{request.param}_split").core
    with contextlib.closing(Trio(path, core, **SMALL_BATCHES)) as made:
        yield made


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(
        np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32)
    )


def check_rows(trio: Trio) -> None:
    """Every row of the text, in every mode."""
    expected = trio.stock._scores
    for llm in (trio.full, trio.exact):
        assert llm.n_tokens == trio.stock.n_tokens
        assert same_bits(np.asarray(llm._scores), expected)
    found = np.asarray(trio.tailored._scores)
    ids = trio.tailored.active_ids
    assert same_bits(found[:, ids], expected[:, ids])
    others = np.setdiff1d(np.arange(expected.shape[1]), ids)
    assert np.isneginf(found[:, others]).all()


def ids_of(trio: Trio, n: int, seed: int = 0) -> list[int]:
    n_vocab = trio.stock.n_vocab()
    return np.random.default_rng(seed).integers(n_vocab // 4, n_vocab - 10, n).tolist()


def test_rows_are_stocks_bits(trio: Trio) -> None:
    """Several batches of several micro-batches, single steps, and texts cut inside of one."""
    everyone = (trio.stock, *trio.all)
    for llm in everyone:
        llm.reset()
        llm.eval(ids_of(trio, 101))
    check_rows(trio)
    for token in ids_of(trio, 3, seed=1):
        for llm in everyone:
            llm.eval([token])
    check_rows(trio)
    for llm in everyone:
        llm.n_tokens = 57
        llm.eval(ids_of(trio, 30, seed=2))
    check_rows(trio)
    if trio.stock._ctx.kv_cache_seq_rm(-1, 60, -1):
        tokens = trio.stock.input_ids[:57].tolist() + ids_of(trio, 9, seed=4)
        for llm in everyone:  # what both begin with stays
            next(stream := llm.generate(tokens, temp=0.0))
            stream.close()
        check_rows(trio)


def test_generated_rows_are_stocks_bits(trio: Trio) -> None:
    prompt = ids_of(trio, 70, seed=5)
    for sampling in ({"temp": 0.0}, {"temp": 1.0, "top_k": 50}):
        taken = []
        for llm in (trio.stock, trio.full, trio.exact):
            llm.reset()
            llm.set_seed(9)
            stream = llm.generate(prompt, **sampling)
            taken.append(list(itertools.islice(stream, 20)))
            stream.close()
        assert taken[1:] == taken[:1] * 2
        for llm in (trio.full, trio.exact):
            assert same_bits(np.asarray(llm._scores), trio.stock._scores)


def test_arrays(trio: Trio) -> None:
    tokens = ids_of(trio, 30)
    for llm in (trio.stock, trio.exact, trio.full):
        llm.reset()
        llm.eval(tokens)
    stock, rows = trio.stock, trio.stock._scores.copy()
    assert trio.exact.scores.shape == stock.scores.shape
    for llm in (trio.exact, trio.full):
        scores = llm._scores
        assert isinstance(scores, Scores)
        assert (scores.shape, len(scores), scores.ndim) == (rows.shape, len(rows), 2)
        assert (scores.size, scores.nbytes, scores.dtype) == (rows.size, rows.nbytes, rows.dtype)
        for index in (
            -1,
            3,
            (-1, slice(None)),
            slice(2, 9, 3),
            (slice(4, 6), slice(10, 20)),
            (7, 5),
            (slice(None), 5),
            [3, 1],
            ([3, 1], [8, 9]),
            ([3, 1], slice(0, 5)),
            (Ellipsis, 4),
            np.array([[1, 2], [3, 4]]),
            np.ix_([0, 1], [2, 3]),
            (np.array([1, 2])[:, None], [3, 4]),
            (np.arange(len(rows)) % 7 == 1, [3]),
            ([3, 3], 1),
            rows > 0,
            True,
            np.arange(len(rows)) % 7 == 1,
        ):
            assert np.array_equal(np.asarray(scores[index]), rows[index])
        assert scores[-1].shape == (rows.shape[1],)
        assert len(scores[-1]) == rows.shape[1]
        assert np.array_equal(scores[-1] - 1, rows[-1] - 1)
        assert scores[-1].argmax() == rows[-1].argmax()
        assert np.array_equal(scores.copy(), rows)
        assert np.array_equal(copy.copy(scores[2]).copy(), rows[2])
        assert np.array_equal(np.stack(list(scores)), rows)
        assert np.array_equal(list(scores[4]), rows[4])
        assert llm.eval_logits == stock.eval_logits
        assert llm.eval_logits.maxlen == stock.eval_logits.maxlen
        found = llama_cpp.Llama.logits_to_logprobs(scores)
        assert np.array_equal(found, stock.logits_to_logprobs(rows))
        with pytest.raises(IndexError):
            scores[len(rows)]
        with pytest.raises(AttributeError):
            scores.no_such_thing  # noqa: B018
        assert np.isnan(llm.scores[len(rows)]).all()  # no token, no logits


@pytest.mark.parametrize("logits_all", [False, True])
def test_the_array_has_stocks_shape(tiny: Any, tiny_split: Any, logits_all: bool) -> None:
    options = {**COMMON, "n_ctx": 100, "n_batch": 60, "logits_all": logits_all}
    stock = llama_cpp.Llama(str(tiny("llama-tied")), **options)
    llm = TailoredLlama(tiny_split("llama-tied").core, **options)
    assert llm.scores.shape == stock.scores.shape
    assert llm.eval_logits.maxlen == stock.eval_logits.maxlen
    llm.close()
    stock.close()


class Difference:
    """The largest one between log-probabilities that are compared."""

    def __init__(self) -> None:
        self.most = 0.0
        self.n = 0

    def check(self, found: Any, expected: Any) -> None:
        """Compare responses: structure, texts, order of the best; numbers to 1e-5."""
        if isinstance(expected, dict):
            assert list(found) == list(expected)
            for key in set(expected) - {"id", "created", "model"}:
                self.check(found[key], expected[key])
        elif isinstance(expected, list):
            assert len(found) == len(expected)
            for a, b in zip(found, expected, strict=True):
                self.check(a, b)
        elif isinstance(expected, float | np.floating):
            assert abs(found - expected) <= 1e-5
            self.most = max(self.most, abs(found - float(expected)))
            self.n += 1
        else:
            assert found == expected


def complete(llm: llama_cpp.Llama, prompt: Any, **asked: Any) -> Any:
    llm.reset()
    out = llm.create_completion(prompt, max_tokens=12, **asked)
    return list(out) if asked.get("stream") else out


@pytest.mark.parametrize("stream,echo,n_top", ASKED)
def test_completions_have_stocks_logprobs(
    trio: Trio, stream: bool, echo: bool, n_top: int, capsys: pytest.CaptureFixture[str]
) -> None:
    difference = Difference()
    # stock sorts every row in Python
    for prompt in PROMPTS if trio.stock.n_vocab() < 10_000 else PROMPTS[1:2]:
        for sampling in (
            {"temperature": 0.0},
            {"temperature": 1.1, "seed": 3, "stop": ["e", "th"]},
            {"temperature": 1.5, "seed": 5, "top_k": 200, "stop": "\n"},
        ):
            asked = {"logprobs": n_top, "stream": stream, "echo": echo, **sampling}
            try:
                expected = complete(trio.stock, prompt, **asked)
            except (IndexError, AssertionError):
                assert prompt == ""  # nothing but a BOS is echoed, or there is not even that
                continue
            for llm in (trio.full, trio.exact):
                difference.check(complete(llm, prompt, **asked), expected)
    with capsys.disabled():
        print(f" {difference.n} numbers, at most {difference.most:.1e} apart", end="")


def test_token_prompts_and_repeated_ones(trio: Trio) -> None:
    prompt = ids_of(trio, 40)
    asked = {"logprobs": 2, "temperature": 0.0, "max_tokens": 6}
    trio.stock.reset()
    expected = trio.stock.create_completion(prompt, **asked)
    for llm in (trio.full, trio.exact):
        llm.reset()
        for _ in range(2):
            Difference().check(llm.create_completion(prompt, **asked), expected)
        Difference().check(
            llm.create_completion(prompt[:30], **asked)["choices"][0],
            trio.stock.create_completion(prompt[:30], **asked)["choices"][0],
        )


def test_chats_have_stocks_logprobs(trio: Trio) -> None:
    asked: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Where is Rome?"}],
        "logprobs": True,
        "top_logprobs": 4,
        "max_tokens": 8,
        "temperature": 0.0,
    }
    for stream in (False, True):
        for llm in (trio.full, trio.exact, trio.tailored, trio.stock):
            llm.reset()
        expected = trio.stock.create_chat_completion(**asked, stream=stream)
        expected = list(expected) if stream else expected
        for llm in (trio.full, trio.exact):
            found = llm.create_chat_completion(**asked, stream=stream)
            Difference().check(list(found) if stream else found, expected)
        found = trio.tailored.create_chat_completion(**asked, stream=stream)
        told = [part["choices"][0]["logprobs"] for part in (found if stream else [found])]
        assert {t["over"] for t in told if t} <= {"active set"}
        assert stream or told[0]


def test_tailored_probabilities_are_over_the_active_set(trio: Trio) -> None:
    llm = trio.tailored
    seen = []

    def look(ids: Any, scores: Any) -> bool:
        seen.append(np.asarray(scores).copy())
        return False

    for stream in (False, True):
        seen.clear()
        llm.reset()
        out = llm.create_completion(
            "Rome is",
            max_tokens=5,
            logprobs=3,
            temperature=0.0,
            stream=stream,
            stopping_criteria=llama_cpp.StoppingCriteriaList([look]),
        )
        told = [c["choices"][0]["logprobs"] for c in (out if stream else [out])]
        told = [t for t in told if t]
        assert {t["over"] for t in told} == {"active set"}
        found = [p for t in told for p in t["token_logprobs"]]
        expected = [llama_cpp.Llama.logits_to_logprobs(row).max() for row in seen[: len(found)]]
        assert found
        assert np.allclose(found, expected, atol=1e-5, rtol=0)


def test_without_logits_all(tiny: Any, tiny_split: Any) -> None:
    """What stock refuses works, and asking for probabilities changes no token."""
    stock = llama_cpp.Llama(str(tiny("llama-tied")), logits_all=True, **COMMON)
    asked: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0}
    for mode in ("exact", "full"):
        llm = TailoredLlama(tiny_split("llama-tied").core, mode=mode, **COMMON)
        for prompt in ("Rome is", "Rome is", "Rome is a"):
            plain = llm.create_completion(prompt, **asked)["choices"][0]["text"]
            for echo in (False, True):
                found = llm.create_completion(prompt, echo=echo, logprobs=2, **asked)
                assert found["choices"][0]["text"] == (prompt if echo else "") + plain
                expected = stock.create_completion(prompt, echo=echo, logprobs=2, **asked)
                Difference().check(found, expected)
        llm.reset()
        llm.eval([5, 6, 7])
        assert np.isnan(llm.scores[0]).all()
        assert np.isfinite(llm._scores[-1]).all()
        assert len(llm.eval_logits) == 1
        llm.close()
    stock.close()


def test_a_stream_that_lost_its_text_ends_quietly(tiny_split: Any) -> None:
    """The first one still has tokens that it did not tell, since they may begin a stop string."""
    llm = TailoredLlama(tiny_split("llama-tied").core, **COMMON)
    prompt = "Rome is the capital"
    asked: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0, "stream": True}
    plain = [c["choices"][0]["text"] for c in llm.create_completion(prompt, **asked)]
    asked["stop"] = [t[-1:] + "\0" for t in plain if t]
    for n in range(1, 6):
        stream = llm.create_completion(prompt, logprobs=2, **asked)
        told = [part["choices"][0]["text"] for part in itertools.islice(stream, n)]
        assert told == plain[:n]
        llm.create_completion("a b c d " * 12, max_tokens=3, temperature=0.0)
        tokens = llm.n_tokens
        stream.close()
        assert llm.n_tokens == tokens
    stream = llm.create_completion(prompt, logprobs=2, **asked)
    next(stream)
    llm.close()
    stream.close()


def test_vocabulary_probabilities_in_tailored_mode(tiny: Any, tiny_split: Any) -> None:
    core = tiny_split("llama-tied").core
    llm = TailoredLlama(core, mode="tailored", logprobs_over="vocabulary", **COMMON)
    exact = TailoredLlama(core, mode="exact", **COMMON)
    found = llm.create_completion("Rome is", max_tokens=4, logprobs=3, temperature=0.0)
    assert found["choices"][0]["logprobs"]["over"] == "vocabulary"
    scored = llm.score("Rome is a city")
    assert scored.over == "vocabulary"
    assert np.array_equal(scored.logprobs, exact.score("Rome is a city").logprobs, equal_nan=True)
    llm.close()
    exact.close()
    with pytest.raises(ValueError, match="logprobs_over: found 'all'"):
        TailoredLlama(core, logprobs_over="all", **COMMON)


def stock_logprobs(stock: llama_cpp.Llama, *texts: list[int]) -> np.ndarray:
    """Of all tokens in all places, (n, n_vocab), of texts that follow one another."""
    stock.reset()
    for tokens in texts:
        stock.eval(tokens)
    out: np.ndarray = stock.logits_to_logprobs(stock._scores)
    return out


def test_saved_states_bring_their_rows(tiny: Any, tiny_split: Any) -> None:
    stock = llama_cpp.Llama(str(tiny("llama-tied")), logits_all=True, **SMALL_BATCHES)
    core = tiny_split("llama-tied").core
    tokens = list(range(300, 401))
    for mode in ("exact", "full"):
        first, second = (
            TailoredLlama(core, mode=mode, logits_all=True, **SMALL_BATCHES) for _ in "12"
        )
        stock.reset()
        for llm in (stock, first):
            llm.eval(tokens)
        state = pickle.loads(pickle.dumps(first.save_state()))
        assert state.scores.nbytes == 101 * 4 * (first.n_embd() + 2)
        second.eval([5, 6, 7])
        second.load_state(state)
        assert same_bits(np.asarray(second._scores), stock._scores)
        for llm in (stock, second):
            llm.eval([7])
        assert same_bits(np.asarray(second._scores), stock._scores)
        second.load_state(stock.save_state())  # with logits, which are not taken
        assert np.isnan(second._scores[0]).all()
        state.scores[3, -2] = 10**6
        with pytest.raises(VocabTailorError, match="more states were multiplied at once"):
            second.load_state(state)
        first.close()
        second.close()
    stock.close()


def read(pointer: Any, n: int) -> np.ndarray:
    return np.ctypeslib.as_array(pointer, shape=(n,)).copy()


def test_raw_pointers_tell_every_output(trio: Trio) -> None:
    """What stock's own eval reads: as many rows as tokens of the last batch."""
    n_vocab = trio.stock.n_vocab()
    for n in (101, 1):  # the last batch has 5 tokens, then one
        n_last = (n - 1) % 48 + 1
        for llm in (trio.stock, trio.full, trio.exact):
            llm.reset()
            llm.eval(ids_of(trio, n))
        expected = read(trio.stock._ctx.get_logits(), n_last * n_vocab)
        for llm in (trio.full, trio.exact):
            assert same_bits(read(llm._ctx.get_logits(), n_last * n_vocab), expected)
            for i in range(-n_last, n_last):
                row = read(trio.stock._ctx.get_logits_ith(i), n_vocab)
                assert same_bits(read(llm._ctx.get_logits_ith(i), n_vocab), row)
            for i in (n_last, -n_last - 1):
                with pytest.raises(VocabTailorError, match="logits of output"):
                    llm._ctx.get_logits_ith(i)
        trio.full.n_tokens = 0
        with pytest.raises(VocabTailorError, match="nothing has been decoded"):
            trio.full._ctx.get_logits()


def test_raw_batches_with_several_outputs(tiny: Any, tiny_split: Any) -> None:
    core = tiny_split("llama-tied").core
    stock = llama_cpp.Llama(str(tiny("llama-tied")), **SMALL_BATCHES)
    n_vocab = stock.n_vocab()
    models = [stock, *(TailoredLlama(core, mode=m, **SMALL_BATCHES) for m in ("exact", "full"))]
    marks = [int(i % 3 == 1) for i in range(30)]
    found = []
    for llm in models:
        llm._batch.set_batch(list(range(300, 330)), n_past=0, logits_all=False)
        for i, mark in enumerate(marks):
            llm._batch.batch.logits[i] = mark
        llm._ctx.decode(llm._batch)
        rows = [read(llm._ctx.get_logits(), sum(marks) * n_vocab)]
        rows += [read(llm._ctx.get_logits_ith(i), n_vocab) for i in (1, 28, -1, -10)]
        found.append(np.concatenate(rows))
    assert all(same_bits(f, found[0]) for f in found)
    for llm in models[1:]:
        with pytest.raises(VocabTailorError, match="the last batch has 10"):
            llm._ctx.get_logits_ith(2)
    for llm in models:
        llm.close()


def test_raw_pointers_after_a_batch_that_is_gone(tiny_split: Any) -> None:
    llm = TailoredLlama(tiny_split("llama-tied").core, **COMMON)
    llm._batch.set_batch([5, 6, 7], n_past=0, logits_all=True)
    llm._ctx.decode(llm._batch)
    llm.reset()
    for read_one in (llm._ctx.get_logits, lambda: llm._ctx.get_logits_ith(-1)):
        with pytest.raises(VocabTailorError):
            read_one()
    llm.close()


def test_nothing_is_kept_that_nobody_asks_for(tiny_split: Any) -> None:
    core = tiny_split("llama-tied").core
    for mode in ("exact", "full"):
        llm = TailoredLlama(core, mode=mode, **COMMON)
        asked: dict[str, Any] = {"max_tokens": 100, "temperature": 0.0}
        for logprobs, least, most in ((None, 0, 0), (2, 40, 100), (None, 0, 0)):
            llm.reset()
            llm.create_completion("Rome is " * 20, logprobs=logprobs, **asked)
            sizes, _ = llm._session.native.places(0, llm.n_tokens)
            assert least <= np.count_nonzero(sizes) <= most
        llm.close()


def test_memory_does_not_grow_with_the_vocabulary_times_the_text(tiny_split: Any) -> None:
    options = {**COMMON, "n_ctx": 1024, "n_batch": 256, "n_ubatch": 64}
    core = tiny_split("llama", n_vocab=5003).core
    for mode in ("exact", "full"):
        llm = TailoredLlama(core, mode=mode, logits_all=True, **options)
        n_logits = 4 * llm.n_vocab() * 1000  # bytes
        tokens = np.random.default_rng(0).integers(0, llm.n_vocab(), 1000).tolist()
        llm.eval(tokens[:2])
        assert np.isfinite(llm._scores[-1]).all()
        before = llm.memory_report()
        tracemalloc.start()
        llm.score(tokens, top=5)
        out = llm.create_completion(tokens[:990], logprobs=3, max_tokens=9, echo=False)
        assert np.isfinite(llm._scores[500]).all()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        after = llm.memory_report()
        assert len(out["choices"][0]["logprobs"]["tokens"]) > 0
        assert peak < n_logits / 4
        grown = sum(
            getattr(after, part) - getattr(before, part)
            for part in ("embedding", "head", "whole_head", "logits")
        )
        assert grown < n_logits / 4
        assert after.logits < n_logits / 100
        llm.close()


def test_score_is_stocks(trio: Trio, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ids_of(trio, 120, seed=8)
    expected = stock_logprobs(trio.stock, tokens)
    wanted = expected[np.arange(119), tokens[1:]]
    for llm in (trio.full, trio.exact):
        found = llm.score(tokens, top=5)
        assert found.tokens.tolist() == tokens
        assert found.logprobs.dtype == np.float32
        assert np.isnan(found.logprobs[0])
        assert np.abs(found.logprobs[1:] - wanted).max() <= 1e-5
        assert len(found.top) == 120
        assert found.top[0] == {}
        for row, best in zip(expected, found.top[1:], strict=False):
            order = sorted(zip(row.tolist(), range(row.size), strict=True), reverse=True)[:5]
            assert list(best) == [i for _, i in order]
            assert np.abs(np.array(list(best.values())) - [p for p, _ in order]).max() <= 1e-5
        assert abs(found.total - wanted.sum(dtype=np.float64)) < 1e-3
        assert found.over == "vocabulary"
    with capsys.disabled():
        print(f" at most {np.abs(found.logprobs[1:] - wanted).max():.1e} apart", end="")
    found = trio.tailored.score(tokens)
    ids = trio.tailored.active_ids
    # numpy adds up columns of another order without care
    rows = np.ascontiguousarray(trio.stock._scores[:, ids])
    active = llama_cpp.Llama.logits_to_logprobs(rows)
    at = [ids.tolist().index(t) for t in tokens[1:]]
    assert np.abs(found.logprobs[1:] - active[np.arange(119), at]).max() <= 1e-5
    assert found.over == "active set"


def test_choices_are_stocks(trio: Trio) -> None:
    context, longer = ids_of(trio, 50, seed=9), ids_of(trio, 40, seed=10)
    choices = [longer[:1], longer[1:4], [], longer, longer[:2]]
    for llm in (trio.full, trio.exact):
        found = llm.score_continuations(context, choices, top=2)
        before = llm.stats.tokens
        llm.score_continuations(context, choices)
        if llm._session.native.can_truncate:
            assert llm.stats.tokens - before == 50 + 2 + 39 + 1
        for choice, score in zip(choices, found, strict=True):
            assert score.tokens.tolist() == choice
            assert len(score.top) == len(choice)
            if choice:
                rows = stock_logprobs(trio.stock, context, choice[:-1])[49:]
                wanted = rows[np.arange(len(choice)), choice]
                assert np.abs(score.logprobs - wanted).max() <= 1e-5
        assert llm._input_ids.tolist() == context
    one = trio.exact.score_continuations(context, [longer[:1]])[0]
    wanted = stock_logprobs(trio.stock, context)[-1, longer[0]]
    assert abs(one.logprobs[0] - wanted) <= 1e-5


def test_scoring_texts_and_bad_arguments(tiny_split: Any) -> None:
    llm = TailoredLlama(tiny_split("llama-tied").core, **COMMON)
    assert np.array_equal(
        llm.score("Rome").logprobs, llm.score(llm.tokenize(b"Rome")).logprobs, equal_nan=True
    )
    assert np.array_equal(llm.score(b"Rome").tokens, llm.tokenize(b"Rome"))
    assert llm.score([]).logprobs.shape == (0,)
    assert np.isnan(llm.score([5]).logprobs).tolist() == [True]
    assert llm.score_continuations("Rome", []) == ()
    with pytest.raises(VocabTailorError, match="257 tokens: expected no more than n_ctx = 256"):
        llm.score([5] * 257)
    with pytest.raises(VocabTailorError, match="expected no more than n_ctx"):
        llm.score_continuations([5] * 250, [[5] * 7])
    with pytest.raises(VocabTailorError, match="context has no tokens"):
        llm.score_continuations([], [[5]])
    with pytest.raises(VocabTailorError, match="token id"):
        llm.score([llm.n_vocab()])
    with pytest.raises(ValueError, match="top: found -1"):
        llm.score([5], top=-1)
    stream = llm.generate([5, 6])
    next(stream)
    llm.score([5, 6])
    with pytest.raises(VocabTailorError, match="another request"):
        next(stream)
    llm.close()
    with pytest.raises(VocabTailorError, match="closed"):
        llm.score("Rome")
