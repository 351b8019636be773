"""Softmax over the tokens of a head, chunk by chunk, against logits that are all in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from headbench import TABLES, Bench, cached_benches, hidden_states, ids32

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.softmax import Softmax, States, logits, softmax
from vocabtailor_gguf.binding.whole_head import Placement, WholeHead
from vocabtailor_gguf.errors import TokenIdError, VocabTailorError

PLACEMENTS: tuple[Placement, ...] = ("mapped", "memory", "streamed")


@pytest.fixture(scope="module")
def bench(tiny_split: Callable[..., Any]) -> Callable[[str], Bench]:
    return cached_benches(tiny_split)


def groups_of(b: Bench, groups: tuple[int, ...]) -> tuple[States, np.ndarray]:
    """States in groups, and their (n, n_vocab) logits."""
    hidden = hidden_states(sum(groups), b.store.n_embd, seed=4)
    ends = np.cumsum(groups)
    rows = [
        b.all_rows.compute(hidden[end - n : end], n_threads=1)
        for n, end in zip(groups, ends, strict=True)
    ]
    return States(hidden, groups), np.concatenate(rows)


def check(found: Softmax, expected: np.ndarray, ids: np.ndarray, tokens: Any, of: Any) -> None:
    """Compares with a softmax over columns `ids` of all logits."""
    columns = expected[:, ids]
    assert found.max.tobytes() == columns.max(axis=1).tobytes()
    exact = np.exp(columns.astype(np.float64) - found.max[:, None]).sum(axis=1)
    assert np.abs(found.sum / exact - 1).max() < 1e-6
    active = np.isin(tokens, ids)
    assert found.targets[active].tobytes() == expected[of, tokens][active].tobytes()
    assert np.isneginf(found.targets[~active]).all()
    n_top = found.top_ids.shape[1]
    for state, row in enumerate(columns):
        best = sorted(zip(row.tolist(), ids.tolist(), strict=True), reverse=True)[:n_top]
        n = len(best)
        assert found.top_ids[state, :n].tolist() == [i for _, i in best]
        assert found.top[state, :n].tolist() == [v for v, _ in best]
        assert (found.top_ids[state, n:] == -1).all()


@pytest.mark.parametrize("table", TABLES)
def test_both_heads(table: str, bench: Callable[[str], Bench]) -> None:
    b = bench(table)
    states, expected = groups_of(b, (1, 3, 1, 8))
    rng = np.random.default_rng(5)
    tokens, of = ids32(rng.integers(0, b.n_vocab, 40)), ids32(rng.integers(0, 13, 40))
    wanted: dict[str, Any] = {"targets": tokens, "of": of, "n_top": 7}
    everything = np.arange(b.n_vocab)
    for placement in PLACEMENTS:
        whole = WholeHead(b.store, placement=placement)
        for n_threads in (1, 2):
            found = softmax("whole_head", whole.handle, states, n_threads=n_threads, **wanted)
            check(found, expected, everything, tokens, of)
        rows = logits(
            "whole_head", whole.handle, states.hidden[5:], np.array([7, 0]), b.n_vocab, n_threads=2
        )
        assert rows.tobytes() == expected[[12, 5]].tobytes()
        whole.close()
    head = ActiveHead(b.store)
    head.set_static(ids32(rng.permutation(b.n_vocab)[:70]))
    head.append(ids32(rng.permutation(b.n_vocab)[:50]))
    found = softmax("head", head.handle, states, n_threads=2, **wanted)
    check(found, expected, head.ids(), tokens, of)
    rows = logits("head", head.handle, states.hidden[5:], np.array([3]), head.n_rows, n_threads=1)
    assert rows.tobytes() == expected[[8]][:, head.ids()].tobytes()
    few = ActiveHead(b.store)
    few.set_static(ids32([3, 1]))
    check(
        softmax("head", few.handle, states, n_threads=1, **wanted), expected, few.ids(), tokens, of
    )


def test_states_one_by_one_are_worth_ggmls_own_copy(tiny_split: Callable[..., Any]) -> None:
    """Where ggml interleaves rows they are interleaved once, unless they are streamed."""
    b = Bench(tiny_split("llama", output_type="Q4_0", n_vocab=20_000).vocab)  # several chunks
    buffer = native.ffi.new("char[]", 64)
    native.call("vt_weight_buffer", 2, b.store.n_embd, b.n_vocab, buffer, 64)  # Q4_0
    is_plain = native.ffi.string(buffer) == b"CPU"
    states, expected = groups_of(b, (1, 1, 1))
    everything = np.arange(b.n_vocab)
    for placement in PLACEMENTS:
        whole = WholeHead(b.store, placement=placement)
        n_read = []
        for i in range(3):
            one = States(states.hidden[i : i + 1], (1,))
            before = b.store.n_read
            found = softmax("whole_head", whole.handle, one, n_threads=2, n_top=3)
            check(found, expected[i : i + 1], everything, ids32([]), ids32([]))
            n_read.append(b.store.n_read - before)
        assert n_read[2] == (b.n_vocab if placement == "streamed" else 0)
        assert n_read[0] == (0 if is_plain and placement != "streamed" else b.n_vocab)
        whole.close()


def test_more_states_than_a_chunk_has_room_for(bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0, large")
    states, expected = groups_of(b, (700, 400))
    whole = WholeHead(b.store, placement="mapped")
    found = softmax("whole_head", whole.handle, states, n_threads=2, n_top=3)
    check(found, expected, np.arange(b.n_vocab), ids32([]), ids32([]))
    found = softmax("head", b.all_rows.handle, states, n_threads=2, n_top=b.n_vocab)
    check(found, expected, np.arange(b.n_vocab), ids32([]), ids32([]))


def test_bad_arguments(bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0")
    states, _ = groups_of(b, (2, 2))
    handle = b.all_rows.handle
    for bad in ((4, 1), (3,), (0, 4), ()):
        with pytest.raises(VocabTailorError, match="groups do not add up"):
            softmax("head", handle, States(states.hidden, bad), n_threads=1)
    with pytest.raises(TokenIdError, match="target 0: token id"):
        softmax("head", handle, states, n_threads=1, targets=ids32([b.n_vocab]), of=ids32([0]))
    with pytest.raises(VocabTailorError, match="state is out of range"):
        softmax("head", handle, states, n_threads=1, targets=ids32([1]), of=ids32([4]))
    with pytest.raises(ValueError, match="1 tokens of 0 states"):
        softmax("head", handle, states, n_threads=1, targets=ids32([1]))
    with pytest.raises(VocabTailorError, match="best tokens of"):
        softmax("head", handle, states, n_threads=1, n_top=b.n_vocab + 1)
    with pytest.raises(VocabTailorError, match="0 threads"):
        softmax("head", handle, states, n_threads=0)
    with pytest.raises(VocabTailorError, match="no such hidden state"):
        logits("head", handle, states.hidden, np.array([4]), b.n_vocab, n_threads=1)
    empty = ActiveHead(b.store)
    with pytest.raises(VocabTailorError, match="the active set is empty"):
        softmax("head", empty.handle, states, n_threads=1)
    states.hidden[1, 3] = np.inf
    with pytest.raises(VocabTailorError, match="not finite"):
        softmax("head", handle, states, n_threads=1)
    none = softmax("head", handle, States(states.hidden[:0], ()), n_threads=1, n_top=2)
    assert none.max.size == 0


def test_log_probabilities_are_stocks_to_some_bits(bench: Callable[[str], Bench]) -> None:
    import llama_cpp

    b = bench("Q8_0, large")
    states, expected = groups_of(b, (1, 5))
    stock = llama_cpp.Llama.logits_to_logprobs(expected)
    found = softmax("head", b.all_rows.handle, states, n_threads=1, n_top=4)
    logprobs = found.logprobs(found.top, np.arange(6)[:, None])
    assert np.abs(logprobs - np.take_along_axis(stock, found.top_ids, 1)).max() < 1e-5
