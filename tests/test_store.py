from __future__ import annotations

import ctypes
import gc
import math
import mmap
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import TinyModel, TinySplit
from gguf import GGUFReader
from gguf.quants import dequantize
from ggufbytes import U32, TensorInfo, header, key, pad

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import (
    BadFileError,
    MismatchError,
    TokenIdError,
    VocabTailorError,
)
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.split.split import SplitFiles

Floats = npt.NDArray[np.float32]

TYPES_OF_32 = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"]
TYPES_OF_256 = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0", "TQ2_0"]


def _ggml_dequantize(data: npt.NDArray[np.uint8], kind: int, n_embd: int) -> Floats:
    """Returns all rows as ggml dequantises them at once."""
    source = np.ascontiguousarray(data).view(np.uint8)
    out = np.empty((len(data), n_embd), dtype=np.float32)
    native.call(
        "vt_requantize",
        kind,
        native.ffi.from_buffer("uint8_t[]", source),
        source.nbytes,
        0,
        native.ffi.from_buffer("uint8_t[]", out, require_writable=True),
        out.nbytes,
        *out.shape,
        1,
    )
    return out


@pytest.mark.parametrize(
    ("kind", "n_embd"), [*((t, 64) for t in TYPES_OF_32), *((t, 256) for t in TYPES_OF_256)]
)
def test_rows_are_the_dequantised_tensor(kind: str, n_embd: int, tiny_split: TinySplit) -> None:
    path = tiny_split("llama-tied", embd_type=kind, n_embd=n_embd).vocab
    tensor = next(t for t in GGUFReader(path).tensors if t.name == "token_embd.weight")
    by_ggml = _ggml_dequantize(tensor.data, tensor.tensor_type, n_embd)
    by_gguf = dequantize(tensor.data, tensor.tensor_type)
    with VocabStore(path) as store:
        assert (store.embedding_type, store.head_type) == (kind, kind)
        rows = store.rows(np.arange(store.n_vocab))
        assert rows.dtype == np.float32
        assert rows.tobytes() == by_ggml.tobytes()
        assert rows.tobytes() == by_gguf.tobytes()
        n = store.n_vocab
        for ids in ([n - 1], [5, 3, 4, 5, 5, n - 1, 0], range(17), [1, 2, 3, 9, 8, 7]):
            assert store.rows(ids).tobytes() == by_ggml[list(ids)].tobytes()


def test_ids_of_any_integer_type(tiny_split: TinySplit) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        expected = store.rows([7, 300, 7])
        wide = np.arange(store.n_vocab, dtype=np.int64)
        for ids in (
            (7, 300, 7),
            *(np.array([7, 300, 7], dtype=t) for t in "u2 i2 i4 u4 i8 u8".split()),
            np.array([7, 300, 7], dtype=">i4"),
            np.array([7, -1, 300, -1, 7])[::2],
            wide[[7, 300, 7]],
        ):
            assert store.rows(ids).tobytes() == expected.tobytes()
        for nothing in ([], (), np.empty(0), np.empty(0, dtype=np.int32)):
            assert store.rows(nothing).shape == (0, store.n_embd)


@pytest.mark.parametrize(
    "ids",
    [
        [-1],
        [0, 517],
        [2**31 - 1],
        [2**31],
        [2**32],
        [-(2**63)],
        [2**64 - 1],
        [1.0],
        [math.nan],
        [True],
        ["1"],
        [None],
        [[1, 2]],
        7,
        np.zeros((2, 2), dtype=np.int32),
        np.array([1], dtype=np.complex64),
    ],
    ids=repr,
)
def test_bad_ids(ids: Any, tiny_split: TinySplit) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        assert store.n_vocab == 517
        with pytest.raises(TokenIdError, match="token id"):
            store.rows(ids)
        assert store.n_read == 0
        assert issubclass(TokenIdError, ValueError)


def test_rows_read_are_counted(tiny_split: TinySplit) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        store.rows([1, 2, 3])
        store.rows([3])
        assert store.n_read == 4


def test_closed_store(tiny_split: TinySplit) -> None:
    store = VocabStore(tiny_split("llama").vocab)
    store.close()
    store.close()
    calls = (
        lambda: store.rows([0]),
        store.validate_data,
        lambda: store.n_read,
        lambda: store.handle,
    )
    for call in calls:
        with pytest.raises(VocabTailorError, match="the store is closed"):
            call()
    with VocabStore(tiny_split("llama").vocab) as store:
        pass
    with pytest.raises(VocabTailorError, match="closed"):
        store.rows([0])


@pytest.mark.skipif(sys.platform == "win32", reason="counts descriptors by way of /dev/fd")
def test_closing_gives_the_file_back(tiny_split: TinySplit) -> None:
    path = tiny_split("llama").vocab
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        VocabStore(path).close()
    assert len(os.listdir("/dev/fd")) == before


def test_other_files(tiny: TinyModel, tiny_split: TinySplit) -> None:
    with pytest.raises(MismatchError, match=r"found \"core\".*NAME\.vocab\.gguf"):
        VocabStore(tiny_split("llama").core)
    with pytest.raises(BadFileError, match=r"vocabtailor\.format_version.*not a vocabulary store"):
        VocabStore(tiny("llama"))


def _open_in_time(path: Path | str) -> BaseException:
    """Returns the error of opening; fails if that takes too long."""
    found: list[BaseException] = []

    def work() -> None:
        for kind in (VocabStore, GGUFHeader):
            try:
                kind(path)
            except VocabTailorError as e:
                found.append(e)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert [type(e) for e in found] == [BadFileError, BadFileError]
    assert str(found[0]) == str(found[1])
    return found[0]


def test_what_is_not_a_regular_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing.gguf"
    assert str(_open_in_time(missing)).startswith(f"{missing}: cannot be opened: ")
    assert "not a regular file" in str(_open_in_time(tmp_path))
    assert "NUL" in str(_open_in_time("a\0b.gguf"))
    assert "cannot be opened" in str(_open_in_time(""))
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.gguf")
        assert "not a regular file" in str(_open_in_time(tmp_path / "pipe.gguf"))
        assert "not a regular file" in str(_open_in_time("/dev/null"))
        assert "cannot be opened" in str(_open_in_time(tmp_path / ("n" * 300)))


def test_path_of_any_letters(tiny_split: TinySplit, tmp_path: Path) -> None:
    folder = tmp_path / "caf\u00e9 \u65e5\u672c"
    folder.mkdir()
    with VocabStore(shutil.copy(tiny_split("llama").vocab, folder / "x y.gguf")) as store:
        assert store.rows([0]).shape == (1, 64)


def test_store_that_shrinks_after_opening(tiny_split: TinySplit, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_split("llama-tied").vocab, tmp_path / "store.gguf"))
    table = GGUFHeader(path).tensors["token_embd.weight"]
    with VocabStore(path) as store:
        first = store.rows([0])
        os.truncate(path, table.offset + 10 * table.row_bytes + 1)
        assert store.rows([0]).tobytes() == first.tobytes()
        for ids in ([10], [9, 10], [store.n_vocab - 1]):
            with pytest.raises(BadFileError, match=r"store\.gguf: ends at byte .* it shrank"):
                store.rows(ids)
        with pytest.raises(BadFileError, match="it shrank"):
            store.validate_data()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced")
def test_store_that_is_replaced_after_opening(tiny_split: TinySplit, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_split("llama-tied").vocab, tmp_path / "store.gguf"))
    with VocabStore(path) as store:
        expected = store.rows([5, 6])
        os.replace(shutil.copy(tiny_split("qwen3").vocab, tmp_path / "new.gguf"), path)
        assert store.rows([5, 6]).tobytes() == expected.tobytes()


def test_values_that_are_not_finite(tiny_split: TinySplit, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_split("llama").vocab, tmp_path / "store.gguf"))
    for name in ("token_embd.weight", "output.weight"):
        table = GGUFHeader(path).tensors[name]
        with VocabStore(path) as store:
            store.validate_data()
        with open(path, "r+b") as f:
            f.seek(table.offset + 100 * table.row_bytes)
            scale = f.read(2)
            f.seek(-2, os.SEEK_CUR)
            f.write(np.float16(np.nan).tobytes())
            f.flush()
            with (
                VocabStore(path) as store,
                pytest.raises(BadFileError, match=f"tensor {name}: .* not finite"),
            ):
                store.validate_data()
            f.seek(-2, os.SEEK_CUR)
            f.write(scale)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bias_that_is_not_finite(tiny_split: TinySplit, tmp_path: Path, value: float) -> None:
    """Nobody should have to ask: it is added to every logit."""
    path = Path(shutil.copy(tiny_split("phi2").vocab, tmp_path / "store.gguf"))
    bias = GGUFHeader(path).tensors["output.bias"]
    with open(path, "r+b") as f:
        with VocabStore(path) as store:
            f.seek(bias.offset + 4 * 77)
            f.write(np.float32(value).tobytes())
            f.flush()
            with pytest.raises(BadFileError, match=r"tensor output\.bias: .* not finite"):
                store.validate_data()
        with pytest.raises(BadFileError, match=r"tensor output\.bias: .* not finite"):
            VocabStore(path)


@pytest.mark.skipif(sys.platform != "linux", reason="writes a sparse file")
@pytest.mark.parametrize("n_embd", [2**20, 2**30])
def test_a_sparse_store_of_long_rows(tiny_split: TinySplit, tmp_path: Path, n_embd: int) -> None:
    """A header of some KB must not cost memory in proportion to what it says."""
    source = GGUFHeader(tiny_split("llama").vocab)
    n_vocab = source.tensors["token_embd.weight"].ne[1]
    records = {name: k.record for name, k in source.keys.items()}
    records["vocabtailor.n_embd"] = key("vocabtailor.n_embd", U32, n_embd)
    tables = [TensorInfo(n, (n_embd, n_vocab), 0) for n in ("token_embd.weight", "output.weight")]
    path = tmp_path / "sparse.vocab.gguf"
    path.write_bytes(pad(header(list(records.values()), tables)))
    os.truncate(path, path.stat().st_size + sum(t.n_bytes for t in tables))
    code = """
import resource, sys
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import BadFileError
with open("/proc/self/statm") as f:
    in_use = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (64 << 20),) * 2)
try:
    with VocabStore(sys.argv[1]) as store:
        print(store.rows([3]).shape)
except BadFileError as e:
    print(e)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    if n_embd == 2**20:
        assert done.stdout == "(1, 1048576)\n", done.stderr
    else:
        assert "rows of 1073741824 values, expected at most 1048576" in done.stdout, done.stderr


def test_two_threads(tiny_split: TinySplit) -> None:
    with VocabStore(tiny_split("llama").vocab) as store:
        ids = np.random.default_rng(0).integers(0, store.n_vocab, (2, 400))
        expected = [store.rows(i).tobytes() for i in ids]
        right, busy, wrong = [0, 0], [0, 0], []

        def work(k: int) -> None:
            for _ in range(300):
                try:
                    rows = store.rows(ids[k])
                except VocabTailorError as e:
                    if "another thread" not in str(e):
                        wrong.append(str(e))
                    busy[k] += 1
                else:
                    right[k] += 1
                    if rows.tobytes() != expected[k]:
                        wrong.append(f"rows of thread {k}")

        threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert wrong == []
        assert sum(right) > 0
        assert sum(right) + sum(busy) == 600


def test_close_while_another_thread_reads(tiny_split: TinySplit) -> None:
    path = tiny_split("llama").vocab
    ids = np.arange(500)
    for _ in range(20):
        store = VocabStore(path)
        expected = store.rows(ids).tobytes()
        started = threading.Event()
        wrong: list[str] = []

        def work(
            store: VocabStore = store,
            expected: bytes = expected,
            started: threading.Event = started,
            wrong: list[str] = wrong,
        ) -> None:
            while True:
                try:
                    rows = store.rows(ids)
                except VocabTailorError as e:
                    assert "the store is closed" in str(e)
                    return
                if rows.tobytes() != expected:
                    wrong.append("rows")
                started.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert started.wait(30)
        store.close()
        thread.join()
        assert wrong == []


def _pages_in_cache(path: Path) -> int:
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        seen = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        libc = ctypes.CDLL(None, use_errno=True)
        begin, size = ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped))
        status = libc.mincore(begin, size, seen)
        del first
    if status != 0:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in seen)


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its page cache")
def test_rows_bring_few_pages_into_memory(gemma_split: SplitFiles) -> None:
    with VocabStore(gemma_split.vocab) as store, open(gemma_split.vocab, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = _pages_in_cache(gemma_split.vocab)
        if before > 100:
            pytest.skip(f"the kernel keeps {before} pages of the file")
        store.rows(np.linspace(0, store.n_vocab - 1, 30, dtype=np.int32))
        assert 15 <= _pages_in_cache(gemma_split.vocab) - before <= 100
