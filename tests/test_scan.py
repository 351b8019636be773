"""The scan's kernels against ggml's product."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import testlib
from conftest import TinySplit
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import (
    dequantize,
    quant_shape_from_byte_shape,
    quant_shape_to_byte_shape,
    quantize,
)
from headbench import TABLES, cached_benches

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

F16 = GGMLQuantizationType.F16
BF16 = GGMLQuantizationType.BF16
Q8_0 = GGMLQuantizationType.Q8_0
Q4_0 = GGMLQuantizationType.Q4_0
Q4_1 = GGMLQuantizationType.Q4_1
Q5_0 = GGMLQuantizationType.Q5_0
IQ4_NL = GGMLQuantizationType.IQ4_NL
Q4_K = GGMLQuantizationType.Q4_K
Q5_K = GGMLQuantizationType.Q5_K
Q6_K = GGMLQuantizationType.Q6_K

# where halves lie in a block, and where quants do
SCALES = {Q8_0: [0], Q4_0: [0], Q5_0: [0], IQ4_NL: [0], Q4_K: [0, 2], Q5_K: [0, 2], Q6_K: [208]}
QUANTS = {
    **{Q8_0: (2, 34), Q4_0: (2, 18), Q5_0: (2, 22), IQ4_NL: (2, 18)},
    **{Q4_K: (4, 144), Q5_K: (4, 176), Q6_K: (0, 208)},
}
IN_32 = (Q8_0, Q4_0, Q5_0, IQ4_NL)
IN_256 = (Q4_K, Q5_K, Q6_K)
FLOATS = (F16, BF16)
KINDS = (*SCALES, *FLOATS)


def kernels() -> list[str]:
    names = []
    while pointer := native.lib().vt_scan_kernel(len(names)):
        names.append(native.ffi.string(pointer).decode())
    return names


def scan(
    kernel: str | None,
    kind: GGMLQuantizationType,
    rows: Bytes,
    hidden: Floats,
    thresholds: Floats,
    threads: int,
    whole_states: bool = False,
) -> tuple[dict[tuple[int, int], float], Floats]:
    n_rows, n_embd = quant_shape_from_byte_shape(rows.shape, kind)
    n_states = len(hidden)
    hits = testlib.ffi.new("vt_scan_hit[]", n_rows * n_states)
    n = native.ffi.new("size_t *")
    margins = np.empty(n_states, dtype=np.float32)
    view = native.ffi.from_buffer
    testlib.call(
        "vt_scan",
        native.ffi.NULL if kernel is None else kernel.encode(),
        int(kind),
        view("uint8_t[]", np.ascontiguousarray(rows)),
        n_rows,
        n_embd,
        view("float[]", np.ascontiguousarray(hidden)),
        n_states,
        whole_states,
        view("float[]", thresholds),
        threads,
        hits,
        len(hits),
        n,
        view("float[]", margins),
    )
    found = [(hits[i].row, hits[i].state, hits[i].value) for i in range(n[0])]
    assert [f[:2] for f in found] == sorted(f[:2] for f in found)
    return {f[:2]: f[2] for f in found}, margins


def rows_of(kind: GGMLQuantizationType, n_rows: int, n_embd: int, seed: int) -> Bytes:
    """Random rows as ggml quantises them: (n_rows, bytes)."""
    values = np.random.default_rng(seed).standard_normal((n_rows, n_embd), np.float32)
    return requantize(values.view(np.uint8), GGMLQuantizationType.F32, kind)


def requantize(rows: Bytes, source: GGMLQuantizationType, kind: GGMLQuantizationType) -> Bytes:
    n_rows, n_embd = quant_shape_from_byte_shape(rows.shape, source)
    shape = quant_shape_to_byte_shape((n_rows, n_embd), kind)
    out = np.empty(shape, dtype=np.uint8)
    view = native.ffi.from_buffer
    native.call(
        "vt_requantize",
        int(source),
        view("uint8_t[]", rows),
        rows.size,
        int(kind),
        view("uint8_t[]", out),
        out.size,
        n_rows,
        n_embd,
        1,
    )
    return out


def takes_whole_states(kind: GGMLQuantizationType, n_embd: int, n_rows: int) -> bool:
    """Whether ggml multiplies a head of this type with states that it does not round."""
    name = native.ffi.new("char[]", 64)
    native.call("vt_weight_buffer", int(kind), n_embd, n_rows, name, 64)
    return kind == F16 and native.ffi.string(name) == b"AMX"


def rounded(hidden: Floats, kind: GGMLQuantizationType) -> npt.NDArray[np.float64]:
    """States as ggml's product with rows of a type sees them, in blocks of int8 or as floats."""
    if kind in IN_32:
        return dequantize(quantize(hidden, Q8_0), Q8_0).astype(np.float64)
    if kind in FLOATS:
        return dequantize(quantize(hidden, kind), kind).astype(np.float64)
    blocks = hidden.reshape(-1, 256)
    at = np.abs(blocks).argmax(axis=1)
    most = blocks[np.arange(len(blocks)), at][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.float32(-127) / most
        quants = np.where(most == 0, 0, np.minimum(127, np.rint(inverse * blocks)))
        scales = np.where(most == 0, 0, np.float32(1) / inverse)
    return (quants.astype(np.float64) * scales.astype(np.float64)).reshape(hidden.shape)


def logits_of(rows: Bytes, kind: GGMLQuantizationType, hidden: Floats) -> npt.NDArray[np.float64]:
    """(n_rows, n_states): what ggml's integers give when nothing is rounded."""
    return dequantize(rows, kind).astype(np.float64) @ rounded(hidden, kind).T


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize(
    ("kind", "n_embd"),
    [
        *((Q8_0, n) for n in (32, 64, 96, 576, 640)),
        *((kind, n) for kind in (Q4_0, Q5_0, IQ4_NL) for n in (32, 96, 640)),
        *((kind, n) for kind in IN_256 for n in (256, 768)),
        *((kind, n) for kind in FLOATS for n in (32, 96, 640)),
    ],
)
@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 8, 9, 15, 16])
def test_kernels_agree_with_the_product(
    kernel: str, kind: GGMLQuantizationType, n_embd: int, n_states: int
) -> None:
    rows = rows_of(kind, 203, n_embd, n_states)
    hidden = np.random.default_rng(n_embd).standard_normal((n_states, n_embd), np.float32)
    exact = logits_of(rows, kind, hidden)
    everything = np.full(n_states, -np.inf, dtype=np.float32)
    values, margins = scan(kernel, kind, rows, hidden, everything, 1)
    assert len(values) == exact.size
    for (row, state), value in values.items():
        assert abs(value - exact[row, state]) <= margins[state]
    # minima and offsets of their own make the parts of a logit larger than their sum
    assert (margins < (2e-3 if kind in IN_256 else 1e-3) * np.abs(exact).max()).all()
    thresholds = np.quantile(exact, 0.95, axis=0).astype(np.float32)
    for threads in (1, 2, 3):
        hits, _ = scan(kernel, kind, rows, hidden, thresholds, threads)
        assert hits == {k: v for k, v in values.items() if v >= thresholds[k[1]]}


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("kind", SCALES)
def test_extreme_weights(kernel: str, kind: GGMLQuantizationType) -> None:
    """Any bytes but for the scales: quants that no quantiser writes, zero and tiny scales."""
    rng = np.random.default_rng(0)
    size = quant_shape_to_byte_shape((1, 1024), kind)[1]
    block = GGML_QUANT_SIZES[kind][1]
    rows = rng.integers(0, 256, (64, size // block, block), dtype=np.uint8)
    for at in SCALES[kind]:
        rows[:, :, at : at + 2] = np.float16([0.5]).view(np.uint8)
        rows[1, :, at : at + 2] = 0
        rows[2, :, at : at + 2] = np.array([1, 0], dtype=np.uint8)  # the smallest
    rows[0, :, slice(*QUANTS[kind])] = 0x80
    rows[3, :, slice(*QUANTS[kind])] = 0xFF
    hidden = rng.standard_normal((3, 1024)).astype(np.float32)
    hidden[1] = 0.0
    hidden[2] *= 1e4
    flat = rows.reshape(64, -1)
    exact = logits_of(flat, kind, hidden)
    values, margins = scan(kernel, kind, flat, hidden, np.full(3, -np.inf, np.float32), 2)
    assert len(values) == exact.size
    for (row, state), value in values.items():
        assert abs(value - exact[row, state]) <= margins[state]
    assert margins[1] == pytest.approx(0.0, abs=1e-30)
    nothing, _ = scan(kernel, kind, flat, hidden, np.full(3, np.inf, np.float32), 1)
    assert nothing == {}


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("whole_states", [False, True])
def test_extreme_floats(kernel: str, kind: GGMLQuantizationType, whole_states: bool) -> None:
    """Any bits: the smallest and largest numbers, and some that are none."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 16, (61, 256), dtype=np.uint16)
    infinite = 0x7C00 if kind == F16 else 0x7F80
    finite = bits & (~np.uint16(infinite) | rng.choice(np.uint16([0, infinite >> 1]), bits.shape))
    finite[:2] &= 0x8000 | ~np.uint16(infinite)  # zeros and what is below normal numbers
    hidden = rng.standard_normal((5, 256)).astype(np.float32)
    hidden[1] = 0.0
    hidden[2] *= 1e-39
    hidden[3] *= 1e-6
    everything = np.full(5, -np.inf, np.float32)
    weights = dequantize(finite.view(np.uint8), kind).astype(np.float64)
    states = hidden.astype(np.float64) if whole_states else rounded(hidden, kind)
    values, margins = scan(kernel, kind, finite.view(np.uint8), hidden, everything, 2, whole_states)
    assert len(values) == 61 * 5
    for (row, state), value in values.items():
        assert abs(value - weights[row] @ states[state]) <= margins[state]
    assert np.isfinite(margins).all()
    assert margins[1] == pytest.approx(0.0, abs=1e-30)
    for wrong in (infinite, infinite | 0x8000, infinite + 1):
        finite[60, 200] = wrong
        found, margins = scan(kernel, kind, finite.view(np.uint8), hidden, everything, 1)
        assert len(found) == 61 * 5
        assert np.isinf(margins).all()


SCANNED = [n for n in TABLES if n.startswith(tuple(kind.name for kind in KINDS))]


@pytest.mark.parametrize("table", [n for n in SCANNED if "llama" in TABLES[n][0]])
def test_margins_cover_ggmls_product(tiny_split: TinySplit, table: str) -> None:
    """Whether ggml interleaves the rows or not."""
    b = cached_benches(tiny_split)(table)
    tensors = {t.name: t for t in GGUFReader(b.store.path).tensors}
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    n = len(b.hidden)
    whole_states = takes_whole_states(head.tensor_type, b.store.n_embd, b.n_vocab)
    data = head.data.view(np.uint8)
    products = [b.all_rows.compute(b.hidden[i : i + 1], n_threads=1)[0] for i in range(n)]
    for kernel in kernels():
        everything = np.full(n, -np.inf, dtype=np.float32)
        found, margins = scan(kernel, head.tensor_type, data, b.hidden, everything, 1, whole_states)
        for (row, state), value in found.items():
            assert abs(value - products[state][row]) <= margins[state]


def test_offsets_that_cancel(tiny_split: TinySplit, tmp_path: Path) -> None:
    """Rows of zeros in Q6_K: ggml adds codes and offsets in different orders, and not to zero."""
    files = tiny_split("llama", output_type="Q6_K", n_vocab=520, n_embd=2048)
    head = GGUFHeader(files.vocab).tensors["output.weight"]
    rng = np.random.default_rng(3)
    rows = np.empty((520, 8, 210), dtype=np.uint8)
    rows[:, :, :128] = 0x00
    rows[:, :, 128:192] = 0xAA  # with the bits before: 32 everywhere
    rows[:, :, 192:208] = rng.choice(np.array([127, 129], dtype=np.uint8), (520, 8, 16))
    rows[:, :, 208:] = np.float16([0.01]).view(np.uint8)
    data = bytearray(files.vocab.read_bytes())
    data[head.offset : head.offset + rows.size] = rows.tobytes()
    path = tmp_path / "zeros.vocab.gguf"
    path.write_bytes(data)
    hidden = rng.standard_normal((16, 2048), np.float32)
    with VocabStore(path) as store:
        all_rows = ActiveHead(store)
        all_rows.set_static(np.arange(520, dtype=np.int32))
        products = [all_rows.compute(hidden[i : i + 1], n_threads=1)[0] for i in range(16)]
        all_rows.close()
    everything = np.full(16, -np.inf, dtype=np.float32)
    for kernel in kernels():
        found, margins = scan(kernel, Q6_K, rows.reshape(520, -1), hidden, everything, 1)
        for (row, state), value in found.items():
            assert abs(value - products[state][row]) <= margins[state]


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
@pytest.mark.parametrize("n_rows", [544, 448, 500])
def test_states_of_every_magnitude(tiny_split: TinySplit, kind: str, n_rows: int) -> None:
    """Against ggml's product as it multiplies a head: with AMX, interleaved rows or plain ones."""
    n_embd = 512
    files = tiny_split("llama", output_type=kind, n_vocab=n_rows, n_embd=n_embd)
    head = {t.name: t for t in GGUFReader(files.vocab).tensors}["output.weight"]
    whole_states = takes_whole_states(head.tensor_type, n_embd, n_rows)
    data = head.data.view(np.uint8)
    rng = np.random.default_rng(n_rows)
    hidden = rng.standard_normal((90, n_embd), np.float32)
    hidden[:80] *= np.float32(10.0) ** np.arange(-43, 37, dtype=np.float32)[:, None]
    hidden[80] = 0.0
    hidden[81:85] *= rng.random((4, n_embd), np.float32) < 0.02  # spikes
    hidden[85:, :256] *= np.float32(1e-36)
    with VocabStore(files.vocab) as store:
        all_rows = ActiveHead(store)
        all_rows.set_static(np.arange(n_rows, dtype=np.int32))
        products = [all_rows.compute(hidden[i : i + 1], n_threads=1)[0] for i in range(90)]
        all_rows.close()
    everything = np.full(10, -np.inf, dtype=np.float32)
    for kernel in kernels():
        for first in range(0, 90, 10):
            states = hidden[first : first + 10]
            found, margins = scan(
                kernel, head.tensor_type, data, states, everything, 1, whole_states
            )
            assert len(found) == 10 * n_rows
            for (row, state), value in found.items():
                expected = products[first + state][row]
                assert np.isinf(margins[state]) or abs(value - expected) <= margins[state]
        assert np.isfinite(margins).all()


def test_bad_arguments() -> None:
    rows = np.zeros((2, 34), dtype=np.uint8)
    good: dict[str, Any] = {"kind": Q8_0, "rows": rows, "hidden": np.ones((1, 32), np.float32)}
    one = np.zeros(1, np.float32)
    with pytest.raises(VocabTailorError, match="no such kernel"):
        scan("mmx", **good, thresholds=one, threads=1)
    for threads in (0, -1, 513, 10**8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(VocabTailorError, match="threads"):
            scan(None, **good, thresholds=one, threads=threads)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 1 << 16  # KiB
    with pytest.raises(VocabTailorError, match="this type"):
        scan(
            None,
            Q4_1,
            np.zeros((2, 20), np.uint8),
            np.ones((1, 32), np.float32),
            one,
            1,
        )
    with pytest.raises(VocabTailorError, match="n_embd"):
        scan(None, Q6_K, np.zeros((2, 0), np.uint8), np.ones((1, 0), np.float32), one, 1)
    with pytest.raises(VocabTailorError, match="1 to 16"):
        scan(None, Q8_0, rows, np.ones((17, 32), np.float32), np.zeros(17, np.float32), 1)
    assert kernels()[-1] == "scalar"
