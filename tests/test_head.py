from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import TinySplit
from gguf import GGUFReader
from gguf.quants import dequantize
from headbench import N_BATCHES, TABLES, Bench, cached_benches

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.split.split import SplitFiles


@pytest.fixture(scope="module")
def bench(tiny_split: TinySplit) -> Callable[[str], Bench]:
    return cached_benches(tiny_split)


@pytest.mark.parametrize("table", TABLES)
def test_other_rows_never_change_a_logit(table: str, bench: Callable[[str], Bench]) -> None:
    b = bench(table)
    rng = np.random.default_rng(1)
    some = rng.permutation(b.n_vocab).astype(np.int32)
    b.check(b.all_rows, range(b.n_vocab))
    head = ActiveHead(b.store)
    sizes = [1, 5, 7, 8, 31, 32, 33, 100, 400, *((2047, 2049, 4500) if b.n_vocab > 5000 else ())]
    for n in sizes:  # growing
        before = head.n_rows
        assert head.append(some[:n]) == n - before
        b.check(head, some[:n], (1, 3))
    head.set_static(some[:40])  # shrinking: the rows that are there stay
    b.check(head, some[:40])
    head.append(some[300:350])
    b.check(head, [*some[:40], *some[300:350]])
    head.reset()
    b.check(head, some[:40])
    head.append(some[100:103])  # into the group that the reset left half full
    b.check(head, [*some[:40], *some[100:103]])
    for order in (some[:200], some[:200][::-1], np.sort(some[:200]), some[50:250]):  # permuting
        head.set_static(order.copy())
        b.check(head, order, (1, 8))
    head.set_static(some[:1])
    b.check(head, some[:1])


@pytest.mark.parametrize("table", TABLES)
def test_logits_are_those_of_the_model(table: str, bench: Callable[[str], Bench]) -> None:
    b = bench(table)
    tensors = {t.name: t for t in GGUFReader(b.store.path).tensors}
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    rows = dequantize(head.data, head.tensor_type).astype(np.float64)
    expected = b.hidden.astype(np.float64) @ rows.T
    size = np.sqrt((expected**2).mean())
    if "output.bias" in tensors:
        assert b.store.has_bias
        expected += tensors["output.bias"].data
    factor = {"command-r": 0.25, "granite": 1 / 1.7}.get(b.store.architecture, 1.0)
    expected *= factor
    if b.store.architecture == "gemma2":
        expected = 30 * np.tanh(expected / 30)
    found = b.expected[max(N_BATCHES)]
    # ggml rounds the hidden state to 8 bits, or to the 16 of the table
    assert np.abs(found - expected).max() < 0.05 * size * factor


@pytest.mark.model
@pytest.mark.parametrize("model", ["gemma_split", "smollm2_split"])
def test_real_models(model: str, request: pytest.FixtureRequest) -> None:
    files: SplitFiles = request.getfixturevalue(model)
    b = Bench(files.vocab)
    rng = np.random.default_rng(2)
    head = ActiveHead(b.store)
    for n in (1, 700, 8192):
        ids = rng.choice(b.n_vocab, n, replace=False).astype(np.int32)
        head.set_static(ids)
        b.check(head, ids)
        more = rng.choice(b.n_vocab, 500, replace=False).astype(np.int32)
        head.append(more)
        b.check(head, list(dict.fromkeys([*ids.tolist(), *more.tolist()])), (1, 8))
        head.reset()
        b.check(head, ids, (1,))
    head.close()
    b.all_rows.close()
    b.store.close()
