"""Tables from any type to any other: rows or an error, and a process that lives."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.errors import VocabTailorError

F32 = GGMLQuantizationType.F32
N_TYPES = 64  # more than there are
N_ROWS, N_VALUES = 3, 512

Bytes = npt.NDArray[np.uint8]


def requantize(source: int, rows: Bytes, n_bytes: int, kind: int, n_threads: int = 1) -> Bytes:
    out = np.empty(n_bytes, dtype=np.uint8)
    view = native.ffi.from_buffer
    native.call(
        "vt_requantize",
        source,
        view("uint8_t[]", rows),
        rows.size,
        kind,
        view("uint8_t[]", out),
        out.size,
        N_ROWS,
        N_VALUES,
        n_threads,
    )
    return out


def table_bytes(kind: int) -> int:
    """Size of the table, or of some table where the type is unknown."""
    block, size = GGML_QUANT_SIZES.get(GGMLQuantizationType(kind), (1, 4))
    return N_ROWS * N_VALUES // block * size


def known_types() -> list[int]:
    return [int(t) for t in GGMLQuantizationType]


def patterns() -> dict[str, npt.NDArray[np.float32]]:
    """Tables of f32 at which quantisers may stumble."""
    rng = np.random.default_rng(1)
    normal = rng.standard_normal((N_ROWS, N_VALUES), np.float32)
    spike = np.zeros_like(normal)
    spike[:, 77] = 1.0
    return {
        "normal": normal,
        "zeros": np.zeros_like(normal),
        "negative zeros": -np.zeros_like(normal),
        "ones": np.ones_like(normal),
        "denormal": normal * np.float32(1e-40),
        "tiny": normal * np.float32(1e-20),
        "small": normal * np.float32(1e-7),
        "large": np.clip(normal * 65504, -65504, 65504),
        "alternating": np.where(np.arange(N_VALUES) % 2, 65504, -65504) * np.ones_like(normal),
        "spike": spike,
        "mixed": normal * np.float32(10.0) ** rng.integers(-40, 4, normal.shape),
        "too large": normal * np.float32(1e30),
        "infinite": np.full_like(normal, np.inf),
        "nan": np.full_like(normal, np.nan),
    }


def sweep() -> dict[str, int]:
    """Convert everything to everything, and count what was done and what was refused."""
    counts = {"done": 0, "refused": 0}
    rng = np.random.default_rng(2)
    tables = {F32: [p.astype(np.float32).view(np.uint8).ravel() for p in patterns().values()]}
    for source in range(-1, N_TYPES):
        size = table_bytes(source) if source in known_types() else 64
        of_type = list(tables.get(source, ()))
        of_type += [rng.integers(0, 256, size, dtype=np.uint8) for _ in range(3)]
        of_type += [np.full(size, x, dtype=np.uint8) for x in (0, 1, 0x3C, 0x7F, 0x80, 0xFF)]
        try:
            of_type.append(requantize(F32, tables[F32][0], size, source))
        except VocabTailorError:
            pass
        for kind in range(-1, N_TYPES):
            n_bytes = table_bytes(kind) if kind in known_types() else 64
            for rows in of_type:
                try:
                    out = requantize(source, rows, n_bytes, kind)
                except VocabTailorError:
                    counts["refused"] += 1
                else:
                    assert source != kind or np.array_equal(out, rows)
                    counts["done"] += 1
    return counts


def test_every_type_to_every_type() -> None:
    """In a process of its own: where ggml aborts, no test could fail."""
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["done"] > 1000 and counts["refused"] > 1000


@pytest.mark.parametrize("kind", known_types())
def test_the_same_type_is_a_copy(kind: int) -> None:
    rows = np.zeros(table_bytes(kind), dtype=np.uint8)
    try:
        native.call("vt_type_info", kind, *(native.ffi.new(f"{t} *") for t in INFO))
    except VocabTailorError:
        with pytest.raises(VocabTailorError, match="type"):
            requantize(kind, rows, rows.size, kind)
        return
    rows[::7] = 0x11
    assert np.array_equal(requantize(kind, rows, rows.size, kind), rows)


INFO = ("char *", "int64_t", "uint64_t")


@pytest.mark.parametrize("kind", ["IQ2_XXS", "IQ2_XS", "IQ1_S"])
def test_types_that_need_an_importance_matrix(kind: str) -> None:
    rows = patterns()["normal"].view(np.uint8).ravel()
    target = GGMLQuantizationType[kind]
    with pytest.raises(VocabTailorError, match=f"{kind.lower()} needs an importance matrix"):
        requantize(F32, rows, table_bytes(target), target)


@pytest.mark.parametrize("n_threads", [0, -1, 10**9])
def test_threads(n_threads: int) -> None:
    rows = patterns()["normal"].view(np.uint8).ravel()
    for kind in (F32, GGMLQuantizationType.Q8_0):
        with pytest.raises(VocabTailorError, match="threads"):
            requantize(F32, rows, table_bytes(kind), kind, n_threads)


if __name__ == "__main__":
    print(json.dumps(sweep()))
