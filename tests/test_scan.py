"""The scan's kernels against ggml's product."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from vocabtailor_gguf import _native
from vocabtailor_gguf.errors import VocabTailorError

Floats = npt.NDArray[np.float32]


def kernels() -> list[str]:
    names = []
    while pointer := _native.lib().vt_scan_kernel(len(names)):
        names.append(_native.ffi.string(pointer).decode())
    return names


def scan(
    kernel: str | None,
    rows: npt.NDArray[np.uint8],
    hidden: Floats,
    thresholds: Floats,
    threads: int,
) -> tuple[dict[tuple[int, int], float], Floats]:
    n_rows, n_bytes = rows.shape
    n_states = len(hidden)
    hits = _native.ffi.new("vt_scan_hit[]", n_rows * n_states)
    n = _native.ffi.new("size_t *")
    margins = np.empty(n_states, dtype=np.float32)
    view = _native.ffi.from_buffer
    _native.call(
        "vt_scan_q8_0",
        _native.ffi.NULL if kernel is None else kernel.encode(),
        view("uint8_t[]", np.ascontiguousarray(rows)),
        n_rows,
        n_bytes // 34 * 32,
        view("float[]", np.ascontiguousarray(hidden)),
        n_states,
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


def logits_of(rows: npt.NDArray[np.uint8], hidden: Floats) -> npt.NDArray[np.float64]:
    """(n_rows, n_states): what ggml's integers give when nothing is rounded."""
    q8 = GGMLQuantizationType.Q8_0
    weights = dequantize(rows, q8).astype(np.float64)
    return weights @ dequantize(quantize(hidden, q8), q8).astype(np.float64).T


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("n_embd", [32, 64, 96, 576, 640])
@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 8, 9, 15, 16])
def test_kernels_agree_with_the_product(kernel: str, n_embd: int, n_states: int) -> None:
    rng = np.random.default_rng(n_embd + n_states)
    rows = quantize(rng.standard_normal((203, n_embd), np.float32), GGMLQuantizationType.Q8_0)
    hidden = rng.standard_normal((n_states, n_embd), np.float32)
    exact = logits_of(rows, hidden)
    everything = np.full(n_states, -np.inf, dtype=np.float32)
    values, margins = scan(kernel, rows, hidden, everything, 1)
    assert len(values) == exact.size
    for (row, state), value in values.items():
        assert abs(value - exact[row, state]) <= margins[state]
    assert (margins < 1e-3 * np.abs(exact).max()).all()
    thresholds = np.quantile(exact, 0.95, axis=0).astype(np.float32)
    for threads in (1, 2, 3):
        hits, _ = scan(kernel, rows, hidden, thresholds, threads)
        assert hits == {k: v for k, v in values.items() if v >= thresholds[k[1]]}


@pytest.mark.parametrize("kernel", kernels())
def test_extreme_weights(kernel: str) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (64, 4, 34), dtype=np.uint8)
    rows[:, :, :2] = np.float16([0.5]).view(np.uint8)
    rows[0, :, 2:] = 0x80  # -128 everywhere, which no quantiser writes
    rows[1, :, :2] = 0  # zero scales
    rows[2, :, :2] = np.array([1, 0], dtype=np.uint8)  # the smallest scale
    hidden = rng.standard_normal((3, 128)).astype(np.float32)
    hidden[1] = 0.0
    hidden[2] *= 1e4
    flat = rows.reshape(64, -1)
    exact = logits_of(flat, hidden)
    values, margins = scan(kernel, flat, hidden, np.full(3, -np.inf, np.float32), 2)
    for (row, state), value in values.items():
        assert abs(value - exact[row, state]) <= margins[state]
    assert margins[1] == pytest.approx(0.0, abs=1e-30)
    nothing, _ = scan(kernel, flat, hidden, np.full(3, np.inf, np.float32), 1)
    assert nothing == {}


def test_bad_arguments() -> None:
    rows = np.zeros((2, 34), dtype=np.uint8)
    good: dict[str, Any] = {"rows": rows, "hidden": np.ones((1, 32), np.float32)}
    one = np.zeros(1, np.float32)
    with pytest.raises(VocabTailorError, match="no such kernel"):
        scan("mmx", **good, thresholds=one, threads=1)
    with pytest.raises(VocabTailorError, match="1 to 16"):
        scan(None, rows, np.ones((17, 32), np.float32), np.zeros(17, np.float32), 1)
    assert kernels()[-1] == "scalar"
