"""Verifiers: one owner of the text, whatever is refused, broken off or fails in between."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp
import numpy as np
import pytest
from conftest import TinyModel, TinySplit
from exactpair import COMMON, Pair
from nativerun import PROMPT, Split, Stock, chain, dist, greedy, i32, opened, top_k

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.errors import BadFileError, VocabTailorError

N_VOCAB = 2048
ALL = range(N_VOCAB)  # drafts hold, so that blocks grow
SAMPLERS: dict[str, list[Callable[[], Any]]] = {
    "greedy": [greedy],
    "draw": [top_k(40), dist(7)],
}

RAISED = (llama_cpp.llama_logit_bias * 2)(
    llama_cpp.llama_logit_bias(1500, 9.0), llama_cpp.llama_logit_bias(1839, 9.0)
)

Open = Callable[..., Split]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


@pytest.fixture
def stock(tiny: TinyModel, stack: contextlib.ExitStack) -> Stock:
    made: Stock = opened(stack, Stock(tiny("llama", n_vocab=N_VOCAB)))
    return made


@pytest.fixture
def split(tiny_split: TinySplit, stack: contextlib.ExitStack) -> Open:
    def get(static: Any = ALL, **options: Any) -> Split:
        files = tiny_split("llama", n_vocab=N_VOCAB)
        made: Split = opened(stack, Split(files, static, **options))
        return made

    return get


def n_cells(split: Split) -> int:
    return split.session.n_past


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "tokens", [[N_VOCAB], [3, -1], [], [1] * 300, [5, 6, 1 << 30]], ids=lambda t: str(t[:3])
)
def test_a_refused_decode_changes_nothing(
    tokens: list[int], name: str, stock: Stock, split: Open
) -> None:
    expected = stock.run(SAMPLERS[name], 50)
    s = split()
    for at in range(10, 20):  # somewhere inside a block
        s.run(SAMPLERS[name], 0)
        out = s.go_on(at)
        out.append(s.verifier.sample())
        before = n_cells(s)
        with pytest.raises(VocabTailorError):
            s.verifier.decode(np.array(tokens, dtype=np.int64))
        assert n_cells(s) == before
        assert s.verifier.n_past == len(PROMPT) + at
        s.verifier.decode(i32(out[-1]))
        assert out + s.go_on(49 - at) == expected


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampling_twice(name: str, stock: Stock, split: Open) -> None:
    """The second token is drawn for the same place; drafts after the first are dropped."""
    s = split()
    for at in range(8, 16):
        s.run(SAMPLERS[name], 0)
        s.go_on(at)
        stock.decode(PROMPT)
        mine, out = chain(SAMPLERS[name]), []
        for i in range(at):
            out.append(stock.sample(mine))
            stock.decode(out[-1:], len(PROMPT) + i)
        pairs = []
        for i in range(at, at + 6):
            expected = [stock.sample(mine) for _ in range(3)]
            assert [s.verifier.sample() for _ in range(3)] == expected
            pairs.append(expected)
            stock.decode(expected[-1:], len(PROMPT) + i)
            s.verifier.decode(i32(expected[-1]))
        llama_cpp.llama_sampler_free(mine)


def test_another_request_in_mid_text(stock: Stock, split: Open) -> None:
    s = split()
    for at in range(8, 16):
        s.run(SAMPLERS["greedy"], 0)
        text = [*PROMPT, *s.go_on(at)]
        s.verifier.sample()  # a block is drafted, and its first token given but not taken
        made = chain(SAMPLERS["draw"])
        s.verifier.begin(made)
        llama_cpp.llama_sampler_free(made)
        assert s.verifier.n_past == n_cells(s) == len(text)
        found = s.go_on(12)
        stock.decode(text)
        mine, expected = chain(SAMPLERS["draw"]), []
        for i in range(12):
            expected.append(stock.sample(mine))
            stock.decode(expected[-1:], len(text) + i)
        llama_cpp.llama_sampler_free(mine)
        assert found == expected


def test_a_request_that_ends_leaves_only_its_text(stock: Stock, split: Open) -> None:
    s = split()
    for at in range(1, 20):
        s.run(SAMPLERS["greedy"], 0)
        text = [*PROMPT, *s.go_on(at)]
        if at % 2:
            s.verifier.sample()
        s.verifier.end()
        assert s.verifier.n_past == n_cells(s) == len(text)
        stock.decode(text[: len(PROMPT)])
        for i in range(len(PROMPT), len(text)):
            stock.decode(text[i : i + 1], i)
        logits = s.session.logits(s.session.n_outputs - 1)
        assert logits.tobytes() == stock.logits()[s.head.ids()].tobytes()
        with pytest.raises(VocabTailorError, match="no request"):
            s.verifier.sample()


def test_going_back(stock: Stock, split: Open) -> None:
    s = split()
    for at in range(9, 16):
        s.run(SAMPLERS["greedy"], 0)
        text = [*PROMPT, *s.go_on(at)]
        s.verifier.sample()
        for wrong in (-1, len(text) + 1):
            with pytest.raises(VocabTailorError, match="the text has"):
                s.verifier.rewind(wrong)
        back = len(text) - 3
        s.verifier.rewind(back)
        assert s.verifier.n_past == n_cells(s) == back
        with pytest.raises(VocabTailorError, match="nothing has been decoded"):
            s.verifier.sample()
        s.verifier.decode(i32(555))
        found = s.go_on(10)
        stock.decode(text[:back])
        stock.decode([555], back)
        mine, expected = chain(SAMPLERS["greedy"]), []
        for i in range(10):
            expected.append(stock.sample(mine))
            stock.decode(expected[-1:], back + 1 + i)
        llama_cpp.llama_sampler_free(mine)
        assert found == expected


def test_the_library_knows_what_cannot_go_back(
    tiny: TinyModel, tiny_split: TinySplit, stack: contextlib.ExitStack
) -> None:
    stock = opened(stack, Stock(tiny("mamba")))
    s = opened(stack, Split(tiny_split("mamba"), range(300), max_block=16))
    for name in SAMPLERS:
        assert s.run(SAMPLERS[name], 60) == stock.run(SAMPLERS[name], 60)
    stats = s.verifier.stats()
    assert stats.n_drafted == stats.n_blocks > 0
    n = s.verifier.n_past
    with pytest.raises(VocabTailorError, match="only to 0"):
        s.verifier.rewind(10)
    assert s.verifier.n_past == n_cells(s) == n
    expected = s.session.hidden().tobytes()
    s.verifier.rewind(n)
    assert s.session.hidden().tobytes() == expected


@pytest.mark.parametrize("rewards", [(64, 1.0, -2.0, 0.0), (256, 1.0, 0.0, -4.0), (64, 0.3, 0, 0)])
def test_penalties_that_raise_logits(rewards: Any, stock: Stock, split: Open) -> None:
    """What was decided on the whole vocabulary may be chosen again, so it is in the set."""
    s = split(range(900))
    arguments = (N_VOCAB, *rewards)
    try:
        llama_cpp.llama_sampler_free(llama_cpp.llama_sampler_init_penalties(*arguments))
    except TypeError:
        arguments = rewards
    for seed in range(1, 6):
        samplers = [
            lambda: llama_cpp.llama_sampler_init_penalties(*arguments),
            top_k(40),
            dist(seed),
        ]
        assert s.run(samplers, 150) == stock.run(samplers, 150)


RAISING = {
    "bias": lambda: llama_cpp.llama_sampler_init_logit_bias(N_VOCAB, 2, RAISED),
    "penalties": lambda: llama_cpp.llama_sampler_init_penalties(N_VOCAB, 64, 0.3, 0.0, 0.0),
}


@pytest.mark.parametrize("name", RAISING)
def test_rows_that_the_caller_drops(name: str, stock: Stock, split: Open) -> None:
    """What a chain raises is active in every draft, whatever happens to the head in between."""
    s = split(range(900))
    for seed in range(1, 4):
        samplers = [RAISING[name], top_k(40), dist(seed)]
        s.run(samplers, 0)
        out: list[int] = []
        while len(out) < 60:
            s.head.reset()
            out += s.go_on(5)
        assert out == stock.run(samplers, 60)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_failure_inside_a_block(
    name: str, tiny_split: TinySplit, stock: Stock, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    files = tiny_split("llama", n_vocab=N_VOCAB)
    vocab = Path(shutil.copy(files.vocab, tmp_path))
    copied = SimpleNamespace(core=files.core, vocab=vocab)
    expected = stock.run(SAMPLERS[name], 60)
    data = vocab.read_bytes()
    s = opened(stack, Split(copied, ALL, placement="streamed"))
    n_failed = 0
    for at in range(0, 24, 3):
        s.run(SAMPLERS[name], 0)
        out = s.go_on(at)
        while len(out) < 60:
            with open(vocab, "r+b") as f:
                f.truncate(len(data) - (1 << 14))  # the whole head cannot be read
            before = (s.verifier.n_past, s.session.hidden().tobytes())
            try:
                token = s.verifier.sample()  # perhaps of a block that is there already
            except BadFileError:
                n_failed += 1
                assert (s.verifier.n_past, s.session.hidden().tobytes()) == before
                assert n_cells(s) == before[0]
                vocab.write_bytes(data)
                token = s.verifier.sample()
            vocab.write_bytes(data)
            out.append(token)
            s.verifier.decode(i32(token))
        assert out == expected
    assert n_failed > 10


@pytest.mark.parametrize("placement", ["memory", "mapped", "streamed"])
def test_a_store_that_is_replaced_after_it_was_opened(
    placement: str,
    tiny_split: TinySplit,
    stock: Stock,
    tmp_path: Path,
    stack: contextlib.ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = tiny_split("llama", n_vocab=N_VOCAB)
    other = tiny_split("llama", n_vocab=N_VOCAB, seed=1).vocab
    vocab = Path(shutil.copy(files.vocab, tmp_path / "live.vocab.gguf"))
    import nativerun

    real = nativerun.WholeHead

    def replaced(*args: Any, **options: Any) -> Any:
        os.replace(shutil.copy(other, tmp_path / "new"), vocab)
        return real(*args, **options)

    monkeypatch.setattr(nativerun, "WholeHead", replaced)
    copied = SimpleNamespace(core=files.core, vocab=vocab)
    s = opened(stack, Split(copied, range(200), placement=placement))
    assert s.run(SAMPLERS["greedy"], 40) == stock.run(SAMPLERS["greedy"], 40)


def test_calls_in_the_wrong_order(split: Open) -> None:
    s = split()
    with pytest.raises(VocabTailorError, match="no request"):
        s.verifier.sample()
    made = chain(SAMPLERS["greedy"])
    s.verifier.begin(made)
    llama_cpp.llama_sampler_free(made)
    with pytest.raises(VocabTailorError, match="nothing has been decoded"):
        s.verifier.sample()
    s.verifier.decode(i32(*PROMPT))
    s.session.decode(i32(7), pos=4)  # behind the verifier's back
    with pytest.raises(VocabTailorError, match="outside the verifier"):
        s.verifier.sample()
    s.verifier.end()
    s.verifier.end()
    assert s.verifier.n_past == 5


def test_exact_mode_is_metered(tiny_split: TinySplit) -> None:
    core = tiny_split("llama", n_vocab=N_VOCAB).core
    with contextlib.closing(TailoredLlama(core, mode="exact", **COMMON)) as llm:
        llm.create_completion(PROMPT, max_tokens=60, temperature=0.0)
        stats = llm.stats
        assert stats.ms_head > 0
        assert stats.ms_sample > 0
        assert stats.ms >= stats.ms_core + stats.ms_head + stats.ms_sample


def test_streams_that_are_broken_off(pair: Callable[..., Pair]) -> None:
    """A stop string, a client that goes, the same prompt again, a text that goes on."""
    both = pair("llama", {"n_vocab": N_VOCAB})
    found = []
    for llm in (both.stock, both.exact):
        steps: list[Any] = [next(llm.generate(PROMPT, temp=0.0)) for _ in range(3)]
        for n in range(1, 20, 3):
            llm.reset()
            stream = llm.generate(PROMPT, temp=0.0)
            text = [*PROMPT, *(next(stream) for _ in range(n))]
            stream.close()
            for again in (PROMPT, text, text[:-1], PROMPT):
                asked: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0}
                steps.append(llm.create_completion(again, **asked)["choices"])
        found.append(steps)
    assert found[0] == found[1]
