"""Sessions: where the text is, what a refused or failed decode leaves."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp
import numpy as np
import pytest
from conftest import TinyModel, TinySplit
from nativerun import PROMPT, Split, Stock, context_params, greedy, i32, load, opened

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.errors import BadFileError, VocabTailorError


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


@pytest.mark.parametrize(
    ("name", "swa_full", "can"),
    [
        ("llama", False, True),
        ("gemma3", True, True),
        ("gemma3", False, False),
        ("mamba", True, False),
    ],
)
def test_what_can_be_taken_back(
    name: str, swa_full: bool, can: bool, tiny_split: TinySplit, stack: contextlib.ExitStack
) -> None:
    split = opened(stack, Split(tiny_split(name), range(461), swa_full=swa_full))
    assert split.session.can_truncate == can
    split.run([greedy], 30)
    stats = split.verifier.stats()
    assert (stats.n_drafted == stats.n_blocks) == (not can)  # one token a block


def test_going_back(tiny: TinyModel, tiny_split: TinySplit, stack: contextlib.ExitStack) -> None:
    stock = opened(stack, Stock(tiny("llama")))
    split = opened(stack, Split(tiny_split("llama"), range(517)))
    session = split.session
    session.decode(i32(*PROMPT, 310, 311), pos=0)
    assert session.n_past == 6
    for call in (
        lambda: session.truncate(7),
        lambda: session.truncate(-1),
        lambda: session.decode(i32(5), pos=7),  # a hole
        lambda: session.decode(i32(5), pos=-1),
        lambda: session.decode(i32(517), pos=2),
        lambda: session.decode(i32(*[5] * 253), pos=4),
        lambda: session.decode(i32(), pos=2),
    ):
        before = session.hidden()
        with pytest.raises(VocabTailorError):
            call()
        assert (session.n_past, session.hidden().tobytes()) == (6, before.tobytes())
    session.truncate(4)
    assert (session.n_past, session.n_outputs) == (4, 0)
    with pytest.raises(VocabTailorError, match="output 0: there are 0"):
        session.logits(0)
    stock.decode([*PROMPT, 320])
    session.decode(i32(320), pos=4)
    session.decode(i32(330), pos=5)
    session.decode(i32(302, 320), pos=3)  # in the place of what was there
    stock.decode([302, 320], 3)
    assert session.n_past == 5
    assert session.logits(0).tobytes() == stock.logits().tobytes()


def test_a_memory_that_cannot_go_back(tiny_split: TinySplit, stack: contextlib.ExitStack) -> None:
    session = opened(stack, Split(tiny_split("mamba"), range(60))).session
    session.decode(i32(*PROMPT), pos=0)
    before = session.hidden()
    for call in (lambda: session.truncate(2), lambda: session.decode(i32(7), pos=2)):
        with pytest.raises(VocabTailorError, match="from position 4 to 2, only to 0"):
            call()
        assert (session.n_past, session.hidden().tobytes()) == (4, before.tobytes())
    session.truncate(0)
    assert session.n_past == 0
    session.decode(i32(*PROMPT), pos=0)
    assert session.hidden().tobytes() == before.tobytes()


def test_more_outputs_than_there_is_room_for(
    tiny_split: TinySplit, stack: contextlib.ExitStack
) -> None:
    options = {"n_outputs_max": 4, "n_batch": 16, "n_ubatch": 8}
    session = opened(stack, Split(tiny_split("llama"), range(60), **options)).session
    marks = np.zeros(20, dtype=np.int8)
    marks[[0, 3, 9, 15, 16, 17]] = 1
    session.decode(i32(*range(20)), pos=0, outputs=marks)
    assert session.n_outputs == 6
    marks[5] = 1
    with pytest.raises(VocabTailorError, match=r"5 outputs in a batch, .* n_outputs_max = 4"):
        session.decode(i32(*range(20)), pos=20, outputs=marks)
    assert (session.n_past, session.n_outputs) == (20, 6)
    with pytest.raises(VocabTailorError, match="expected at least n_seq_max = 5"):
        session.prepare(context_params(n_outputs_max=4, n_seq_max=5))


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_failed_decode_leaves_no_outputs(
    name: str, tiny_split: TinySplit, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    files = tiny_split(name)
    vocab = Path(shutil.copy(files.vocab, tmp_path))
    copied = SimpleNamespace(core=files.core, vocab=vocab)
    split = opened(stack, Split(copied, range(60), n_batch=4, n_ubatch=2))
    session = split.session
    session.decode(i32(*PROMPT), pos=0)
    data = vocab.read_bytes()
    with open(vocab, "r+b") as f:
        f.truncate(len(data) // 4)
    tokens = [1, 2, 3, 4, 5, split.store.n_vocab - 1]  # of three micro-batches the last fails
    marks = np.ones(6, dtype=np.int8)
    with pytest.raises(BadFileError, match="it shrank"):
        session.decode(i32(*tokens), pos=4, outputs=marks)
    assert session.n_outputs == 0
    assert session.n_past == (4 if name == "llama" else 0)
    with pytest.raises(VocabTailorError, match="there are 0"):
        session.logits(0)
    vocab.write_bytes(data)
    if name == "mamba":
        session.decode(i32(*PROMPT), pos=0)
    session.decode(i32(*tokens), pos=4)
    other = opened(stack, Split(files, range(60), n_batch=4, n_ubatch=2)).session
    other.decode(i32(*PROMPT), pos=0)
    other.decode(i32(*tokens), pos=4)
    assert session.hidden().tobytes() == other.hidden().tobytes()


def test_sequences(tiny_split: TinySplit, stack: contextlib.ExitStack) -> None:
    split = opened(stack, Split(tiny_split("llama"), range(60)))
    split.session.decode(i32(*PROMPT), pos=0)
    for seq_id, fits in ((1, True), (2, False), (-1, False)):
        session = opened(stack, NativeSession(split.store, split.head, seq_id=seq_id))
        params = context_params(n_seq_max=2, kv_unified=True)
        with pytest.raises(VocabTailorError, match="not prepared"):
            session.attach(split.ctx)
        session.prepare(params)
        ctx = llama_cpp.llama_init_from_model(split.core, params)
        stack.callback(llama_cpp.llama_free, ctx)
        if not fits:
            with pytest.raises(VocabTailorError, match=f"sequence {seq_id}: the context has 2"):
                session.attach(ctx)
            continue
        session.attach(ctx)
        session.decode(i32(*PROMPT), pos=0)
        assert session.hidden().tobytes() == split.session.hidden().tobytes()
        memory = llama_cpp.llama_get_memory(ctx)
        ends = [llama_cpp.llama_memory_seq_pos_max(memory, i) for i in (0, 1)]
        assert ends == [-1, 3]
        session.truncate(0)
        assert session.n_past == 0


def test_parameters_have_a_size(tiny_split: TinySplit, stack: contextlib.ExitStack) -> None:
    out = native.ffi.new("vt_session **")
    size = native.ffi.sizeof("vt_session_params")
    for wrong in (0, 7, size + 1, 1 << 40):
        params = native.params("vt_session_params")
        params.struct_size = wrong
        with pytest.raises(VocabTailorError, match="struct_size"):
            native.call("vt_session_new", params, out)
    params = native.params("vt_session_params", seq_id=77)
    params.struct_size = size - 8  # a caller that does not know of the last fields
    native.call("vt_session_new", params, out)
    native.lib().vt_session_free(out[0])


def test_sessions_side_by_side(
    tiny: TinyModel, tiny_split: TinySplit, stack: contextlib.ExitStack
) -> None:
    """Two threads, each with a session and a verifier: one store, whole head and static rows."""
    n_vocab = 2048
    first = opened(stack, Split(tiny_split("llama", n_vocab=n_vocab), range(60)))
    splits = [first, opened(stack, Split(None, [], share=first))]
    stock = opened(stack, Stock(tiny("llama", n_vocab=n_vocab)))
    samplers: Any = [[greedy], [lambda: llama_cpp.llama_sampler_init_temp(1.5), _dist]]
    expected = [stock.run(s, 60) for s in samplers]
    wrong: list[Any] = []

    def work(k: int) -> None:
        try:
            for i in range(6):
                if splits[k].run(samplers[(k + i) % 2], 60) != expected[(k + i) % 2]:
                    wrong.append((k, i))
        except Exception as e:
            wrong.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def _dist() -> Any:
    return llama_cpp.llama_sampler_init_dist(5)


def test_an_unsplit_model_is_observed(tiny: TinyModel, stack: contextlib.ExitStack) -> None:
    stock = opened(stack, Stock(tiny("llama")))
    session = opened(stack, NativeSession(None, None))
    params = context_params()
    session.prepare(params)
    model = load(tiny("llama"))
    stack.callback(llama_cpp.llama_model_free, model)
    ctx = llama_cpp.llama_init_from_model(model, params)
    stack.callback(llama_cpp.llama_free, ctx)
    session.attach(ctx)
    session.decode(i32(*PROMPT), pos=0)
    stock.decode(PROMPT)
    raw: Any = llama_cpp.llama_get_logits_ith(ctx, -1)
    found = np.ctypeslib.as_array(raw, shape=(stock.n_vocab,))
    assert found.tobytes() == stock.logits().tobytes()
    assert session.hidden().shape == (1, 64)


def test_reading_many_outputs_takes_few_products(
    tiny_split: TinySplit, stack: contextlib.ExitStack
) -> None:
    files = tiny_split("llama", n_vocab=5003)
    sizes = {"n_ctx": 1024, "n_batch": 1024, "n_ubatch": 1024}
    session = opened(stack, Split(files, range(5003), **sizes)).session
    n = 900  # more than 2**22 logits
    session.decode(i32(*range(n)), pos=0, outputs=np.ones(n, dtype=np.int8))
    rows = np.stack([session.logits(i) for i in range(n)])
    assert session.stats().n_head == 2 * n
    assert session.head is not None
    assert rows.tobytes() == session.head.compute(session.hidden(), n_threads=2).tobytes()
    assert session.logits(0).tobytes() == rows[0].tobytes()


def test_hidden_states_stay_by_position_where_they_are_wanted(
    tiny_split: TinySplit, stack: contextlib.ExitStack
) -> None:
    session = opened(stack, Split(tiny_split("llama"), range(60), n_batch=16, n_ubatch=8)).session
    tokens = i32(*range(20))
    marks = np.zeros(20, dtype=np.int8)
    marks[[1, 3, 9, 17, 18]] = 1

    def kept(n: int = 20) -> dict[int, tuple[int, int]]:
        sizes, places = session.places(0, n)
        return {i: (int(sizes[i]), int(places[i])) for i in range(n) if sizes[i]}

    session.decode(tokens, pos=0, outputs=marks)
    assert kept() == {}
    assert not session.states(0, 20).any()
    session.keep("outputs")
    session.decode(tokens, pos=0, outputs=marks)
    one = {1: (2, 0), 3: (2, 1), 9: (1, 0), 17: (2, 0), 18: (2, 1)}
    assert kept() == one
    assert session.states(0, 20)[[*one]].tobytes() == session.hidden().tobytes()
    assert not session.states(0, 20)[[0, 2, 19]].any()
    hidden = session.states(0, 30)
    session.decode(tokens[:1], pos=10)  # what lay there and beyond is gone
    assert kept() == {1: (2, 0), 3: (2, 1), 9: (1, 0), 10: (1, 0)}
    session.keep("all")
    session.decode(tokens, pos=4)
    assert kept(24) == {
        **{1: (2, 0), 3: (2, 1)},
        **{4 + i: (8, i % 8) for i in range(16)},
        **{20 + i: (4, i) for i in range(4)},
    }
    sizes, places = (np.array([p[i] for p in one.values()], dtype=np.int32) for i in (0, 1))
    session.set_states(2, hidden[[*one]], sizes, np.minimum(places, 1))
    assert kept(24) == {1: (2, 0), **dict(zip(range(2, 7), one.values(), strict=True))}
    assert session.states(2, 5).tobytes() == hidden[[*one]].tobytes()
    session.keep("none")
    session.decode(tokens[:3], pos=4)
    assert kept(24) == {1: (2, 0), 2: (2, 0), 3: (2, 1)}


def test_hidden_states_take_memory_only_where_they_are(
    tiny_split: TinySplit, stack: contextlib.ExitStack
) -> None:
    session = opened(stack, Split(tiny_split("llama"), range(60))).session
    for kept in ("none", "outputs"):
        session.keep(kept)
        session.decode(i32(*range(60)), pos=0)
        row = session.hidden().nbytes
        assert session.stats().n_bytes_hidden < 4 * row + 60 * 32  # not of 60 states
