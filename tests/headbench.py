"""Heads to compare with a head that has all rows, over every kind of table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.store import VocabStore

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

N_BATCHES = (1, 2, 3, 8)

# model, options of write_tiny_model. Where ggml repacks, it does so only where the number of rows
# is a multiple of 8; its float kernels want a multiple of 4.
TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "Q8_0": ("llama", {}),
    "Q8_0, tied": ("gemma3", {}),
    "Q8_0, soft cap": ("gemma2", {}),
    "Q8_0, logit scale": ("command-r", {}),
    "Q8_0, divided": ("granite", {}),
    "Q8_0, bias": ("phi2", {}),
    **{
        f"{kind}, {n_vocab}": ("llama", {"output_type": kind, "n_vocab": n_vocab})
        for kind in ("Q4_0", "Q5_0", "IQ4_NL", "F32", "F16", "BF16")
        for n_vocab in (517, 518, 520)
    },
    **{
        f"{kind}, {n_vocab}": ("llama", {"output_type": kind, "n_vocab": n_vocab, "n_embd": 256})
        for kind in ("Q2_K", "Q4_K", "Q5_K", "Q6_K")
        for n_vocab in (517, 520)
    },
    **{
        f"{kind}, tied, {n_vocab}": ("llama-tied", {"embd_type": kind, "n_vocab": n_vocab})
        for kind in ("Q4_0", "IQ4_NL", "F16")
        for n_vocab in (445, 448)
    },
    **{
        f"{kind}, tied, {n_vocab}": (
            "llama-tied",
            {"embd_type": kind, "n_vocab": n_vocab, "n_embd": 256},
        )
        for kind in ("Q2_K", "Q4_K")
        for n_vocab in (445, 448)
    },
    # more rows than are placed at once, and than there is room for at first
    "Q8_0, large": ("llama", {"n_vocab": 5003}),
    "Q4_0, large": ("llama", {"n_vocab": 5008, "output_type": "Q4_0"}),
    "F16, large": ("llama", {"n_vocab": 5003, "output_type": "F16"}),
}


def ids32(ids: Sequence[int] | range | npt.NDArray[Any]) -> Ids:
    return np.array(ids, dtype=np.int32)


def hidden_states(n: int, n_embd: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, n_embd)).astype(np.float32)


class Bench:
    """A store, and the logits of a head that has all rows, for every batch size."""

    def __init__(self, path: Path) -> None:
        self.store = VocabStore(path)
        self.n_vocab = self.store.n_vocab
        self.hidden = hidden_states(max(N_BATCHES), self.store.n_embd)
        self.all_rows = ActiveHead(self.store)
        self.all_rows.set_static(np.arange(self.n_vocab, dtype=np.int32))
        self.expected = {n: self.compute(self.all_rows, n) for n in N_BATCHES}

    def compute(self, head: ActiveHead, n: int, n_threads: int = 1) -> Floats:
        return head.compute(self.hidden[:n], n_threads=n_threads)

    def check(self, head: ActiveHead, ids: Sequence[int] | Ids, n_batches: Any = N_BATCHES) -> None:
        assert head.ids().tolist() == list(ids)
        columns = list(ids)
        for n in n_batches:
            for n_threads in (1, 2):
                found = self.compute(head, n, n_threads)
                assert found.tobytes() == self.expected[n][:, columns].tobytes()


def cached_benches(split: Callable[..., Any]) -> Callable[[str], Bench]:
    """Return a function that makes the bench of a table once; `split` is the fixture tiny_split."""
    made: dict[str, Bench] = {}

    def get(table: str) -> Bench:
        if table not in made:
            name, options = TABLES[table]
            made[table] = Bench(split(name, **options).vocab)
        return made[table]

    return get
