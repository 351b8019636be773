"""Rows of the store are put in where llama.cpp looks them up."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from conftest import TinyModel, TinySplit
from exactpair import COMMON, take
from ggufbytes import F32, STRING, key, rebuilt

from vocabtailor_gguf import TailoredLlama, TokenSet, split_model
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.split.proof import prove_split

PER_LAYER = "per_layer_token_embd.weight"
PROMPT = [5, *range(300, 367)]


def stock_logits(llm: llama_cpp.Llama, n_vocab: int) -> Any:
    raw = llama_cpp.llama_get_logits_ith(llm._ctx.ctx, -1)
    return np.ctypeslib.as_array(raw, shape=(n_vocab,)).copy()


@pytest.mark.parametrize("n_ubatch", [1, 7, 32])
@pytest.mark.parametrize("swa_full", [True, False])
@pytest.mark.parametrize("name", ["llama", "gemma3", "granite", "mamba", "gemma3n", "gemma4"])
def test_micro_batches(
    name: str, swa_full: bool, n_ubatch: int, tiny: TinyModel, tiny_split: TinySplit
) -> None:
    options = {**COMMON, "n_batch": 32, "n_ubatch": n_ubatch, "swa_full": swa_full}
    files = tiny_split(name)
    with (
        contextlib.closing(llama_cpp.Llama(str(tiny(name)), **options)) as stock,
        contextlib.closing(TailoredLlama(files.core, mode="full", **options)) as full,
    ):
        for tokens in (PROMPT, [300], [301, 302, 303]):
            stock.eval(tokens)
            full.eval(tokens)
            ids, logits = full.last_logits()
            assert logits.tobytes() == stock_logits(stock, ids.size)[ids].tobytes()


@pytest.mark.parametrize("sampling", [{"temp": 0.0}, {"temp": 1.0, "top_k": 20, "seed": 3}])
@pytest.mark.parametrize("name", ["gemma3n", "gemma4"])
def test_models_with_tables_for_each_layer(
    name: str, sampling: dict[str, Any], tiny: TinyModel, tiny_split: TinySplit
) -> None:
    files = tiny_split(name)
    with VocabStore(files.vocab) as store:
        assert store.n_per_layer == GGUFHeader(tiny(name)).tensors[PER_LAYER].ne[0]
        store.validate_data()
    options = {**COMMON, "swa_full": True}
    with contextlib.closing(llama_cpp.Llama(str(tiny(name)), **options)) as stock:
        expected = take(stock, PROMPT, 40, **sampling)
        for mode in ("full", "exact"):
            with contextlib.closing(TailoredLlama(files.core, mode=mode, **options)) as llm:
                assert take(llm, PROMPT, 40, **sampling) == expected
        chosen = TokenSet(range(200, 400))
        with contextlib.closing(TailoredLlama(files.core, token_set=chosen, **options)) as llm:
            stock.reset()
            stock.eval(PROMPT)
            llm.eval(PROMPT)
            ids, logits = llm.last_logits()
            assert logits.tobytes() == stock_logits(stock, llm.n_vocab())[ids].tobytes()


def damaged(source: Path, out: Path, tensor: str, row: int) -> Path:
    """A copy of a file in which the first scale of a row has another sign."""
    table = GGUFHeader(source).tensors[tensor]
    data = bytearray(source.read_bytes())
    data[table.offset + row * table.row_bytes + 1] ^= 0x80
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("tensor", ["token_embd.weight", PER_LAYER])
def test_a_proof_sees_every_row(
    tensor: str, tiny: TinyModel, tiny_split: TinySplit, tmp_path: Path
) -> None:
    files = tiny_split("gemma4")
    core = Path(shutil.copy(files.core, tmp_path))
    bad = damaged(files.vocab, tmp_path / files.vocab.name, tensor, 1)  # the sample's first
    with pytest.raises(VocabTailorError, match=r"hidden state of token 0 \(id 1\)"):
        prove_split(tiny("gemma4"), core, bad)


def test_files_of_before(tiny_split: TinySplit, tmp_path: Path) -> None:
    """They had a factor for rows that were fed in place of token ids."""
    files = tiny_split("gemma3")
    name = "vocabtailor.embedding_scale"
    assert name not in GGUFHeader(files.vocab).keys
    old = [
        rebuilt(path, tmp_path / path.name, **{name: key(name, F32, 8.0)})
        for path in (files.core, files.vocab)
    ]
    tokens = []
    for core in (old[0], files.core):
        with contextlib.closing(TailoredLlama(core, mode="full", **COMMON)) as llm:
            tokens.append(take(llm, PROMPT, 20, temp=0.0))
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("arch", ["qwen4exp", "granite-switch", "deepseek4"])
def test_other_uses_of_token_ids_are_refused(arch: str, tiny: TinyModel, tmp_path: Path) -> None:
    name = "general.architecture"
    path = rebuilt(tiny("llama"), tmp_path / "m.gguf", **{name: key(name, STRING, arch)})
    with pytest.raises(UnsupportedError, match=f"{arch} is not supported: .* token ids"):
        split_model(path, tmp_path)
