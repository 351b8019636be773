from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TinySplit
from headbench import Bench, cached_benches, hidden_states, ids32
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import BadFileError, TokenIdError, VocabTailorError


@pytest.fixture(scope="module")
def bench(tiny_split: TinySplit) -> Callable[[str], Bench]:
    return cached_benches(tiny_split)


_IDS = st.lists(st.integers(0, 516), max_size=70)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set_static"), _IDS.filter(bool)),
        st.tuples(st.just("append"), _IDS),
        st.tuples(st.just("reset"), st.just([])),
    ),
    min_size=1,
    max_size=8,
)


def _new(ids: Sequence[int], known: Sequence[int]) -> list[int]:
    return [i for i in dict.fromkeys(ids) if i not in set(known)]


@settings(max_examples=150, deadline=None)
@given(steps=_STEPS, table=st.sampled_from(["Q8_0", "Q4_0, 517", "F16, 517"]))
def test_set_is_a_list_without_duplicates(
    steps: list[tuple[str, list[int]]], table: str, bench: Callable[[str], Bench]
) -> None:
    b = bench(table)
    head = ActiveHead(b.store)
    static: list[int] = []
    extra: list[int] = []
    for step, ids in steps:
        if step == "set_static":
            static, extra = _new(ids, []), []
            head.set_static(ids32(ids))
        elif step == "append":
            added = _new(ids, static + extra)
            extra += added
            assert head.append(ids32(ids)) == len(added)
        else:
            extra = []
            head.reset()
        assert head.n_static == len(static)
        assert head.n_rows == len(static) + len(extra)
        if head.n_rows:
            b.check(head, static + extra, (1, 2))
        else:
            assert head.ids().size == 0
    head.close()


def test_reset_and_the_same_static_rows_read_nothing(bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0")
    head = ActiveHead(b.store)
    head.set_static(ids32(range(64)))
    head.append(ids32(range(100, 140)))
    before = b.store.n_read
    head.reset()
    assert head.append(ids32(range(64))) == 0
    head.set_static(ids32(range(64)))
    assert b.store.n_read == before
    head.set_static(ids32([*range(64), 200]))
    assert b.store.n_read == before + 1
    assert head.n_bytes > 0


def _failures() -> Iterator[tuple[str, Callable[[ActiveHead], Any], type[Exception], str]]:
    for name in ("set_static", "append"):
        for bad in ([-1], [0, 517], [3, 2**31 - 1], [2**31], [2**40]):
            yield (
                f"{name} {bad}",
                lambda h, name=name, bad=bad: getattr(h, name)(np.array(bad)),
                TokenIdError,
                "token id",
            )
        for kind in ("f4", "f8", "?"):
            yield (
                f"{name} of {kind}",
                lambda h, name=name, kind=kind: getattr(h, name)(np.ones(2, dtype=kind)),
                TokenIdError,
                "expected 1-d integers",
            )
        yield (
            f"{name} 2-d",
            lambda h, name=name: getattr(h, name)(np.ones((2, 2), dtype=np.int32)),
            TokenIdError,
            "expected 1-d integers",
        )
    yield "empty", lambda h: h.set_static(ids32([])), VocabTailorError, "the active set is empty"
    for n in (0, -1, 100_000):
        yield (
            f"{n} threads",
            lambda h, n=n: h.compute(hidden_states(1, 64), n_threads=n),
            VocabTailorError,
            "threads, expected 1 to",
        )
    for shape in ((1, 63), (1, 65), (64,), (1, 1, 64)):
        yield (
            f"hidden states of {shape}",
            lambda h, shape=shape: h.compute(np.ones(shape), n_threads=1),
            ValueError,
            "hidden states",
        )
    yield (
        "no hidden state",
        lambda h: h.compute(np.ones((0, 64)), n_threads=1),
        VocabTailorError,
        "empty",
    )
    for x in (np.nan, np.inf, -np.inf):
        yield (
            f"hidden state of {x}",
            lambda h, x=x: h.compute(np.array([[0.0] * 64, [0.0] * 63 + [x]]), n_threads=1),
            VocabTailorError,
            "hidden state 1 is not finite at 63",
        )


_FAILURES = {name: rest for name, *rest in _failures()}


@pytest.mark.parametrize("name", _FAILURES)
def test_failed_calls_leave_the_set_as_it_was(name: str, bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0")
    call, kind, text = _FAILURES[name]
    head = ActiveHead(b.store)
    head.set_static(ids32([9, 8, 7]))
    head.append(ids32([500, 1]))
    with pytest.raises(kind, match=text):
        call(head)
    assert (head.n_static, head.n_rows) == (3, 5)
    b.check(head, [9, 8, 7, 500, 1])


def test_ids_of_any_layout(bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0")
    head = ActiveHead(b.store)
    head.set_static(np.arange(20, dtype=np.int64)[::3])
    assert head.append(np.array([3, 4], dtype=">u2")) == 1
    b.check(head, [*range(0, 20, 3), 4])


def test_empty_set(bench: Callable[[str], Bench]) -> None:
    head = ActiveHead(bench("Q8_0").store)
    head.reset()
    assert head.append(ids32([])) == 0
    assert (head.n_static, head.n_rows, head.ids().size) == (0, 0, 0)
    with pytest.raises(VocabTailorError, match="the active set is empty"):
        head.compute(hidden_states(1, 64), n_threads=1)


def test_store_that_shrinks_leaves_whole_rows_only(tiny_split: TinySplit, tmp_path: Path) -> None:
    for kind in ("Q8_0", "Q4_0"):
        path = tmp_path / f"{kind}.gguf"
        source = tiny_split("llama", output_type=kind, n_vocab=520).vocab
        path.write_bytes(source.read_bytes())
        b = Bench(path)
        head = ActiveHead(b.store)
        head.set_static(ids32(range(40)))
        with open(path, "r+b") as f:
            f.truncate(path.stat().st_size - 20_000)
        with pytest.raises(BadFileError, match="it shrank"):
            head.append(ids32([60, 519]))
        b.check(head, range(40))
        with pytest.raises(BadFileError, match="it shrank"):
            head.set_static(ids32([*range(35), 519]))
        b.check(head, range(35))


def test_closed_head(tiny_split: TinySplit) -> None:
    store = VocabStore(tiny_split("llama").vocab)
    head = ActiveHead(store)
    head.set_static(ids32([1, 2]))
    expected = head.compute(hidden_states(1, 64), n_threads=1)
    store.close()
    head.append(ids32([3]))
    found = head.compute(hidden_states(1, 64), n_threads=1)
    assert found[:, :2].tobytes() == expected.tobytes()
    head.close()
    head.close()
    calls: tuple[Callable[[], Any], ...] = (
        lambda: head.set_static(ids32([1])),
        lambda: head.append(ids32([1])),
        head.reset,
        lambda: head.compute(hidden_states(1, 64), n_threads=1),
    )
    for call in calls:
        with pytest.raises(VocabTailorError, match="head"):
            call()
    with pytest.raises(VocabTailorError, match="closed"):
        ActiveHead(store)


@pytest.mark.parametrize("table", ["Q8_0", "Q8_0, bias", "Q4_0, 520", "Q4_K, 517", "F16, 517"])
def test_shared_static_rows(table: str, bench: Callable[[str], Bench]) -> None:
    b = bench(table)
    first = ActiveHead(b.store)
    first.set_static(ids32(range(70, 170)))
    first.append(ids32([3, 4]))
    before = b.store.n_read
    second, third = (ActiveHead(b.store, share=first) for _ in range(2))
    assert b.store.n_read == before
    b.check(second, range(70, 170))  # appended rows are a head's own
    second.append(ids32([9, 300, 3]))
    b.check(first, [*range(70, 170), 3, 4])
    b.check(second, [*range(70, 170), 9, 300, 3])
    first.set_static(ids32([*range(70, 150), 200, 201]))
    b.check(first, [*range(70, 150), 200, 201])
    b.check(second, [*range(70, 170), 9, 300, 3])
    b.check(third, range(70, 170))
    first.append(ids32([5]))
    second.reset()
    third.set_static(ids32([1]))
    before = b.store.n_read
    third.set_static(ids32([1]))
    second.set_static(ids32(range(70, 170)))
    assert b.store.n_read == before
    first.close()
    third.close()
    b.check(second, range(70, 170))
    with pytest.raises(VocabTailorError, match="head"):
        ActiveHead(b.store, share=first)
    second.set_static(ids32(range(70, 100)))
    b.check(second, range(70, 100))
    fourth = ActiveHead(b.store, share=second)
    for head in (second, fourth):
        with pytest.raises(TokenIdError):
            head.set_static(ids32([70, 99999]))
        b.check(head, range(70, 100))


def test_an_empty_head_is_shared(bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0")
    first = ActiveHead(b.store)
    second = ActiveHead(b.store, share=first)
    second.append(ids32([4, 5]))
    first.set_static(ids32([1, 2]))
    b.check(first, [1, 2])
    b.check(second, [4, 5])


def test_ids_while_another_thread_appends(bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0, large")
    head = ActiveHead(b.store)
    head.set_static(ids32([0]))
    wrong: list[str] = []

    def work() -> None:
        for i in range(1, b.n_vocab):
            try:
                head.append(ids32([i]))
            except VocabTailorError as e:
                if "another thread" not in str(e):
                    wrong.append(str(e))

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        try:
            ids = head.ids()
        except VocabTailorError as e:
            assert "another thread" in str(e)
            continue
        assert ids[0] == 0
        assert (np.diff(ids) > 0).all()
    thread.join()
    assert wrong == []


def test_two_threads(bench: Callable[[str], Bench]) -> None:
    b = bench("Q8_0, large")
    head = ActiveHead(b.store)
    head.set_static(np.arange(b.n_vocab, dtype=np.int32))
    wrong: list[str] = []
    done = [0, 0]

    def work(k: int) -> None:
        for _ in range(100):
            try:
                found = b.compute(head, 8)
            except VocabTailorError as e:
                if "another thread" not in str(e):
                    wrong.append(str(e))
            else:
                done[k] += 1
                if found.tobytes() != b.expected[8].tobytes():
                    wrong.append("logits")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    assert sum(done) > 0
