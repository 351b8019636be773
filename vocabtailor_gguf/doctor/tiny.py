"""A tiny model with random weights, made on the spot to see whether llama.cpp runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType
from gguf.constants import GGMLQuantizationType

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.types import type_geometry

# rows fit the blocks of K-quants, and numbers of rows every interleaved layout and AMX
_N_EMBD = _N_FF = 256
_N_VOCAB = 512
_N_HEAD = 4
_N_CTX = 256
_TYPES = {  # each weight of another type, so that every kernel of a common model runs
    "token_embd": "Q8_0",
    "output": "Q6_K",
    "attn_q": "Q4_K",
    "attn_k": "Q4_0",
    "attn_v": "Q8_0",
    "attn_output": "Q4_K",
    "ffn_gate": "Q4_0",
    "ffn_up": "Q8_0",
    "ffn_down": "Q6_K",
}


def write_tiny_model(path: Path) -> Path:
    """Write a llama model of one layer and some 500 tokens."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(_N_CTX)
    writer.add_embedding_length(_N_EMBD)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_N_FF)
    writer.add_head_count(_N_HEAD)
    writer.add_head_count_kv(_N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_N_EMBD // _N_HEAD)
    writer.add_vocab_size(_N_VOCAB)
    _add_tokenizer(writer)
    random = np.random.default_rng(1)
    for name, kind in _TYPES.items():
        prefix = "" if name in ("token_embd", "output") else "blk.0."
        n_rows = _N_VOCAB if not prefix else _N_FF if name in ("ffn_gate", "ffn_up") else _N_EMBD
        values = random.normal(0, 0.1, (n_rows, _N_EMBD)).astype(np.float32)
        quantized = GGMLQuantizationType[kind]
        data = _quantize(values, quantized)
        writer.add_tensor(f"{prefix}{name}.weight", data, raw_dtype=quantized)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(_N_EMBD, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter) -> None:
    """Write a tokenizer of bytes, and words that stand for the rest."""
    tokens = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    tokens += [(f"\u2581w{i}", TokenType.NORMAL) for i in range(_N_VOCAB - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([-float(i) for i in range(_N_VOCAB)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _quantize(values: npt.NDArray[np.float32], kind: GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """Return rows (n_rows, row bytes) of a ggml type."""
    block, size = type_geometry(int(kind))
    n_rows, n_cols = values.shape
    out = np.empty((n_rows, n_cols // block * size), dtype=np.uint8)
    native.call(
        "vt_requantize",
        int(GGMLQuantizationType.F32),
        native.ffi.from_buffer("uint8_t[]", values),
        values.nbytes,
        int(kind),
        native.ffi.from_buffer("uint8_t[]", out),
        out.nbytes,
        n_rows,
        n_cols,
        1,
    )
    return out
