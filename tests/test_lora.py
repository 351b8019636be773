"""LoRA adapters on the core, against stock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, take
from gguf import GGUFWriter

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.errors import BadFileError, UnsupportedError

RANK = 4


def write_adapter(
    path: Path, shapes: dict[str, tuple[int, int]], *, arch: str = "llama", seed: int = 0
) -> Path:
    """Write an adapter of tensors whose (n_in, n_out) are given."""
    rng = np.random.default_rng(seed)
    writer = GGUFWriter(path, arch)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for name, (n_in, n_out) in shapes.items():
        writer.add_tensor(f"{name}.lora_a", rng.normal(size=(RANK, n_in)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", rng.normal(size=(n_out, RANK)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


CORE_SHAPES = {
    **{f"blk.{i}.attn_q.weight": (64, 64) for i in (0, 1)},
    "blk.1.ffn_down.weight": (128, 64),
}


@pytest.mark.parametrize("mode", ["exact", "full"])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_adapters_of_the_core(
    tiny: Callable[..., Path],
    tiny_split: Callable[..., Any],
    tmp_path: Path,
    mode: Any,
    scale: float,
) -> None:
    path = str(write_adapter(tmp_path / "a.gguf", CORE_SHAPES))
    asked: dict[str, Any] = {**COMMON, "lora_path": path, "lora_scale": scale}
    with contextlib.ExitStack() as stack:
        opened = [
            llama_cpp.Llama(str(tiny("llama", n_vocab=2048)), **asked),
            TailoredLlama(tiny_split("llama", n_vocab=2048).core, mode=mode, **asked),
            TailoredLlama(tiny_split("llama", n_vocab=2048).core, mode=mode, **COMMON),
        ]
        for llm in opened:
            stack.callback(llm.close)
        rows, texts = [], []
        for llm in opened:
            llm.eval(PROMPTS[0])
            row = np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(2048,))
            rows.append(row.tobytes())
            texts.append([take(llm, p, 20, temp=t) for p in PROMPTS for t in (0.0, 1.0)])
        assert rows[0] == rows[1] != rows[2]
        assert texts[0] == texts[1] != texts[2]
        assert opened[1].lora_path == path


@pytest.mark.parametrize("name", ["token_embd", "output"])
def test_adapters_of_the_vocabulary_are_refused_by_name(
    tiny_split: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    shapes = {**CORE_SHAPES, f"{name}.weight": (64, 517)}
    path = write_adapter(tmp_path / "a.gguf", shapes)
    with pytest.raises(UnsupportedError, match=rf"lora_path.*{name}\.weight"):
        TailoredLlama(tiny_split("llama").core, lora_path=str(path), **COMMON)


def test_adapters_may_be_odd(tiny_split: Callable[..., Any], tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.gguf", CORE_SHAPES)
    odd = tmp_path / "odd.gguf"
    content = path.read_bytes()
    odd.write_bytes(content[:4] + b"\2" + content[5:] + b"x")  # version 2, a byte more
    texts = []
    for lora in (path, odd):
        with contextlib.closing(
            TailoredLlama(tiny_split("llama").core, lora_path=str(lora), **COMMON)
        ) as llm:
            texts.append(take(llm, PROMPTS[0], 12, temp=0.0))
    assert texts[0] == texts[1]


def test_adapters_that_do_not_fit(tiny_split: Callable[..., Any], tmp_path: Path) -> None:
    core = tiny_split("llama").core
    with pytest.raises(BadFileError, match=r"none\.gguf"):
        TailoredLlama(core, lora_path=str(tmp_path / "none.gguf"), **COMMON)
    other = write_adapter(tmp_path / "arch.gguf", CORE_SHAPES, arch="qwen2")
    wrong = write_adapter(tmp_path / "shape.gguf", {"blk.0.attn_q.weight": (32, 64)})
    absent = write_adapter(tmp_path / "absent.gguf", {"blk.7.attn_q.weight": (64, 64)})
    for path in (other, wrong, absent):
        with pytest.raises(RuntimeError, match="lora_path"):
            TailoredLlama(core, lora_path=str(path), **COMMON)
