"""Tiny random-weight GGUF models for the tests.

Each model has the hyper-parameters and tensors that llama.cpp asks of its architecture, and a
working tokenizer, but only a few narrow layers, so that it is written, loaded and decoded in
milliseconds. The text such a model generates is noise; what counts is that its logits are
finite, differ from token to token and are the same on every run.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFValueType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize
from tinytokenizers import add_bpe, add_spm

_CONTEXT = 256
_N_FF = 128
_ALTUP = 4  # gemma3n: llama.cpp has this and the rank as constants
_LOW_RANK = 64
_STATE, _CONV, _RANK = 16, 4, 8  # mamba

_EMBD_STD = 0.3  # a tied head then has logits of standard deviation 0.3 * sqrt(n_embd)
_GAIN = 1.5  # above 1, so that the blocks and not the last token's embedding decide the logits

_Value = bool | int | float | str | list[bool] | np.uint16 | np.int32

_VALUE_TYPES: dict[type, GGUFValueType] = {
    bool: GGUFValueType.BOOL,
    int: GGUFValueType.UINT32,
    float: GGUFValueType.FLOAT32,
    str: GGUFValueType.STRING,
    list: GGUFValueType.ARRAY,
    np.uint16: GGUFValueType.UINT16,
    np.int32: GGUFValueType.INT32,
}


@dataclass(frozen=True)
class _Spec:
    """What sets one model apart from the others.

    Tensors are listed by name: `name` is its weight, `name+` its weight and bias, `name!` has no
    suffix, `name=shape` gives another shape than _SHAPES. Keys that start with a dot are under
    the architecture.
    """

    arch: str
    blocks: str
    n_vocab: int
    tokenizer: str = "spm"  # or the pre-tokenizer of a BPE vocabulary
    top: str = "output_norm"  # without `output`, the head is tied to the token embedding
    n_layer: int = 2
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int | None = None  # n_embd / n_head
    rotary: float = 1.0  # the part of a head that is rotated; 0 leaves the keys out
    rms_norm: bool = True
    embd_scale: float = 1.0  # what the model multiplies embeddings by at the default width
    per_layer: int = 256  # gemma3n: this too is a constant
    keys: Mapping[str, _Value] = field(default_factory=dict)

    def dims(self, n_embd: int, n_vocab: int) -> dict[str, int]:
        """Returns what the letters of a shape stand for."""
        head = self.head_dim or n_embd // self.n_head
        q, k = head * self.n_head, head * self.n_head_kv
        sizes = {"v": n_vocab, "e": n_embd, "c": _CONTEXT, "f": _N_FF, "g": 2 * _N_FF, "t": 2}
        sizes |= {"h": head, "q": q, "k": k, "m": q + 2 * k, "r": int(head * self.rotary) // 2}
        sizes |= {"a": _ALTUP, "b": _ALTUP - 1, "d": _ALTUP**2, "w": _LOW_RANK}
        inner = 2 * n_embd  # mamba: no other factor is supported
        sizes |= {"i": inner, "j": 2 * inner, "s": _STATE, "o": _CONV, "u": _RANK}
        sizes |= {"x": _RANK + 2 * _STATE}
        return sizes | {"p": self.per_layer, "l": self.per_layer * self.n_layer}

    def tensors(self, dims: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the name and shape (rows first) of every tensor in file order."""
        for prefix in ["", *(f"blk.{layer}." for layer in range(self.n_layer))]:
            for item in (self.blocks if prefix else f"token_embd {self.top}").split():
                name, _, letters = item.rstrip("+!").partition("=")
                shape = tuple(dims[letter] for letter in letters or _SHAPES.get(name, "e"))
                yield f"{prefix}{name}{'' if item.endswith('!') else '.weight'}", shape
                if item.endswith("+"):
                    yield f"{prefix}{name}.bias", shape[:1]


# One letter per dimension, see _Spec.dims. Anything else is a norm of the embedding's width.
_SHAPES = {
    **{"token_embd": "ve", "output": "ve", "position_embd": "ce", "token_types": "te"},
    **{"attn_q": "qe", "attn_k": "ke", "attn_v": "ke", "attn_qkv": "me", "attn_output": "eq"},
    **{"attn_q_norm": "h", "attn_k_norm": "h"},
    **{"ffn_gate": "fe", "ffn_up": "fe", "ffn_down": "ef"},
    **{"rope_freqs": "r", "rope_factors_long": "r", "rope_factors_short": "r"},
    **{"per_layer_token_embd": "vl", "per_layer_model_proj": "le", "per_layer_proj_norm": "p"},
    **{"inp_gate": "pe", "proj": "ep", "altup_proj": "bee", "altup_unembd_proj": "bee"},
    **{"altup_router": "ae", "altup_correct_coef": "aa", "altup_predict_coef": "da"},
    **{"laurel_l": "we", "laurel_r": "ew"},
    **{"ssm_in": "je", "ssm_conv1d": "io", "ssm_x": "xi", "ssm_dt": "iu"},
    **{"ssm_a": "is", "ssm_d": "i", "ssm_out": "ei"},
}

_GLU = "ffn_gate ffn_up ffn_down"
_PARALLEL = f"attn_norm attn_q attn_k attn_v attn_output {_GLU}"
_LLAMA = f"{_PARALLEL} ffn_norm"
_LAYER_NORM = "attn_norm+ attn_q attn_k attn_v attn_output"
_QK_NORM = "attn_q_norm attn_k_norm"
_GEMMA2 = f"{_LLAMA} post_attention_norm post_ffw_norm"
_PER_LAYER_TOP = "per_layer_token_embd per_layer_model_proj per_layer_proj_norm output_norm"
_PER_LAYER_BLOCK = f"{_GEMMA2} {_QK_NORM} inp_gate proj post_norm"

# Windows are far shorter than a test's text, so that a wrong one changes the logits.
_WINDOW = 8
_GEMMA_KEYS: dict[str, _Value] = {"tokenizer.ggml.add_space_prefix": False}
_GEMMA_SWA: dict[str, _Value] = {**_GEMMA_KEYS, ".attention.sliding_window": _WINDOW}
_COHERE_KEYS: dict[str, _Value] = {".logit_scale": 0.25, "tokenizer.ggml.add_bos_token": True}
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# One short paragraph per model is easier to compare than one line per argument.
# fmt: off
_SPECS = {
    "llama-tied": _Spec("llama", _LLAMA, 432),
    "llama": _Spec("llama", _LLAMA, 517, top="output_norm output rope_freqs"),
    "qwen2": _Spec(
        "qwen2", "attn_norm attn_q+ attn_k+ attn_v+ attn_output ffn_norm " + _GLU, 448, "qwen2",
        top="output_norm output", keys={"tokenizer.chat_template": _CHATML},
    ),
    "qwen3": _Spec("qwen3", f"{_LLAMA} {_QK_NORM}", 501, "qwen2", head_dim=32),
    "gemma": _Spec("gemma", _LLAMA, 464, n_head=2, n_head_kv=1, embd_scale=8.0, keys=_GEMMA_KEYS),
    "gemma2": _Spec(
        "gemma2", _GEMMA2, 480, head_dim=32, embd_scale=8.0,
        keys={**_GEMMA_SWA, ".attn_logit_softcapping": 50.0, ".final_logit_softcapping": 30.0},
    ),
    # The pattern is given because its default has a full layer only every sixth.
    "gemma3": _Spec(
        "gemma3", f"{_GEMMA2} {_QK_NORM}", 523, n_layer=3, n_head_kv=1, head_dim=32,
        embd_scale=8.0,
        keys={**_GEMMA_SWA, ".attention.sliding_window_pattern": [True, True, False]},
    ),
    "phi3": _Spec(
        "phi3", "attn_norm attn_qkv attn_output ffn_norm ffn_up=ge ffn_down", 408, n_head_kv=4,
        top="output_norm output rope_factors_long rope_factors_short",
        keys={".rope.scaling.original_context_length": 64},
    ),
    "granite": _Spec(
        "granite", _LLAMA, 440, "refact", embd_scale=3.0,
        keys={
            **{".embedding_scale": 3.0, ".residual_scale": 0.6},
            **{".logit_scale": 1.7, ".attention.scale": 0.2},
        },
    ),
    "command-r": _Spec(
        "command-r", _PARALLEL, 456, "command-r", rms_norm=False, keys=_COHERE_KEYS
    ),
    # Four layers: here the default pattern has a full layer every fourth.
    "cohere2": _Spec(
        "cohere2", _PARALLEL, 410, "command-r", n_layer=4, rms_norm=False,
        keys={**_COHERE_KEYS, ".attention.sliding_window": _WINDOW},
    ),
    "olmo2": _Spec(
        "olmo2",
        "attn_q attn_k attn_v attn_output attn_q_norm=q attn_k_norm=k post_attention_norm "
        f"post_ffw_norm {_GLU}",
        496, "dbrx", top="output_norm output",
    ),
    "stablelm": _Spec(
        "stablelm", f"{_LAYER_NORM} ffn_norm+ {_GLU}", 424, "stablelm2",
        top="output_norm+ output", rotary=0.5, rms_norm=False,
    ),
    # Four layers: only every fourth goes without rotation.
    "smollm3": _Spec("smollm3", _LLAMA, 488, "smollm", n_layer=4),
    "gpt2": _Spec(
        "gpt2", "attn_norm+ attn_qkv+ attn_output+ ffn_norm+ ffn_up+ ffn_down+", 459, "gpt-2",
        top="position_embd output_norm+", n_head_kv=4, rotary=0.0, rms_norm=False,
    ),
    "falcon": _Spec(
        "falcon", "attn_norm+ attn_qkv attn_output ffn_up ffn_down", 472, "falcon",
        top="output_norm+ output", n_head_kv=1, rms_norm=False,
    ),
    "phi2": _Spec(
        "phi2", "attn_norm+ attn_q+ attn_k+ attn_v+ attn_output+ ffn_up+ ffn_down+", 475, "gpt-2",
        top="output_norm+ output+", n_head_kv=4, rotary=0.5, rms_norm=False,
    ),
    # Its memory is a state, which cannot forget the last tokens.
    "mamba": _Spec(
        "mamba", "attn_norm ssm_in ssm_conv1d+ ssm_x ssm_dt+ ssm_a! ssm_d! ssm_out", 461, "gpt-2",
        top="output_norm output", rotary=0.0,
        keys={
            **{".ssm.conv_kernel": _CONV, ".ssm.inner_size": 128, ".ssm.state_size": _STATE},
            ".ssm.time_step_rank": _RANK,
        },
    ),
    "minicpm": _Spec(
        "minicpm", _LLAMA, 536, embd_scale=1.8,
        keys={".embedding_scale": 1.8, ".residual_scale": 0.7, ".logit_scale": 1.6},
    ),
    "gemma3n": _Spec(
        "gemma3n",
        f"{_PER_LAYER_BLOCK} altup_correct_coef altup_correct_scale altup_predict_coef "
        "altup_router altup_router_norm laurel_l laurel_r laurel_post_norm",
        416, top=f"{_PER_LAYER_TOP} altup_proj altup_unembd_proj", embd_scale=8.0,
        keys=_GEMMA_SWA,
    ),
    "gemma4": _Spec(
        "gemma4", _PER_LAYER_BLOCK, 416, top=f"{_PER_LAYER_TOP} rope_freqs", head_dim=16,
        embd_scale=8.0, per_layer=32,
        keys={
            **_GEMMA_SWA,
            ".attention.sliding_window_pattern": [True, False],
            **{".attention.key_length_swa": 16, ".attention.value_length_swa": 16},
            ".embedding_length_per_layer_input": 32,
        },
    ),
    "bert": _Spec(
        "bert",
        "attn_q+ attn_k+ attn_v+ attn_output+ attn_output_norm+ ffn_up+ ffn_down+ "
        "layer_output_norm+",
        400, "gpt-2", top="token_types position_embd token_embd_norm+", n_head_kv=4, rotary=0.0,
        rms_norm=False,
        keys={
            **{".attention.causal": False, ".pooling_type": 1},
            "tokenizer.ggml.token_type_count": 2,
        },
    ),
    # The first of two files; the second is never needed, since the first must be turned down.
    "sharded": _Spec(
        "llama", _LLAMA, 432,
        keys={
            **{"split.no": np.uint16(0), "split.count": np.uint16(2)},
            "split.tensors.count": np.int32(40),
        },
    ),
}
# fmt: on

REFUSED: dict[str, str] = {
    "bert": "encoder",
    "sharded": "shard",
}
"""Models that cannot be split, each with a word that the reason has to hold."""

ARCHITECTURES: tuple[str, ...] = tuple(name for name in _SPECS if name not in REFUSED)
"""Models that must work when split."""

# Where the half-precision scale of a block is; for the types with a minimum also where the
# scale of that is, and the mean of the codes, by which the one has to be larger than the other
# for the values to be centred on zero.
_SCALES: dict[str, tuple[int, int | None, float]] = {
    "Q2_K": (80, 82, 1.5),
    "Q3_K": (108, None, 0.0),
    "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5),
    "Q6_K": (208, None, 0.0),
    "IQ4_NL": (0, None, 0.0),
    "IQ4_XS": (0, None, 0.0),
}


def _random_codes(
    rng: np.random.Generator, shape: tuple[int, ...], std: float, kind: GGMLQuantizationType
) -> npt.NDArray[np.uint8]:
    """Returns rows of a type that the gguf package can read but not write.

    Every bit pattern of these types is valid, so random codes under a fitting scale serve as
    well as rounded random values.
    """
    block, size = GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
        raise ValueError(f"{kind.name} needs rows of a multiple of {block} values")
    codes = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), dtype=np.uint8)
    rows = codes.reshape(*shape[:-1], -1)
    scale_at, minimum_at, mean = _SCALES[kind.name]

    def set_scale(scale: float) -> None:
        for at, value in ((scale_at, scale), (minimum_at, scale * mean)):
            if at is not None:
                codes[..., at : at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    trial = 2.0**-8  # small enough for no type to overflow
    set_scale(trial)
    set_scale(trial * std / float(dequantize(rows, kind).std()))
    return rows


def _tensor(
    spec: _Spec, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType, seed: int
) -> npt.NDArray[Any]:
    """Returns the data of one tensor, which depend on nothing but the arguments."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if len(shape) == 1:
        values = rng.normal(0.0 if name.endswith(".bias") else 1.0, 0.1, shape)
        # Makes up for the small weights of the tied head below, else a soft cap would hardly show.
        gain = spec.embd_scale if name == "output_norm.weight" else 1.0
        return (gain * values).astype(np.float32)
    std = _GAIN / math.sqrt(shape[-1])  # keeps activations near one
    if "_embd" in name or name == "token_types.weight":
        # Else a model that scales them up would only ever repeat the last token.
        std = _EMBD_STD / spec.embd_scale
    if name.endswith(".ssm_a"):  # a decay
        return -np.exp(rng.normal(0.0, 0.5, shape)).astype(np.float32)
    if kind.name in _SCALES:
        return _random_codes(rng, shape, std, kind)
    return quantize(rng.normal(0.0, std, shape).astype(np.float32), kind)


def _tensor_type(
    name: str, shape: tuple[int, ...], embd_type: str, output_type: str
) -> GGMLQuantizationType:
    """Returns the type of a tensor: the caller's choice for the vocabulary, else a mixture."""
    kinds = GGMLQuantizationType
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return kinds[embd_type]
    if name == "output.weight":
        return kinds[output_type]
    # Only plain matrix products take any type; some sums and views take nothing but floats.
    floats = ("altup_", "ssm_conv1d", "ssm_a")
    if (
        len(shape) == 1
        or any(part in name for part in floats)
        or name.startswith(("position_", "token_types"))
    ):
        return kinds.F32
    return kinds.Q8_0 if ".ffn_" in name else kinds.F16


def write_tiny_model(
    path: Path,
    name: str,
    *,
    seed: int = 0,
    n_vocab: int | None = None,
    embd_type: str = "Q8_0",
    output_type: str = "Q8_0",
    n_embd: int = 64,
    n_han: int = 0,
) -> Path:
    """Writes a tiny model with random weights.

    Args:
        path: The file to write.
        name: One of ARCHITECTURES or of the keys of REFUSED.
        seed: Decides all weights; equal arguments give equal files, byte for byte.
        n_vocab: The number of tokens, by default a few hundred that depend on the model.
        embd_type: The GGML type of the token embedding.
        output_type: The GGML type of the output matrix, if there is one.
        n_embd: The width of the model, a multiple of 32 and of the types' block sizes.
        n_han: So many of the last tokens are of Han characters; of SentencePiece-style tokenizers.

    Returns:
        The path.

    Raises:
        ValueError: If the vocabulary is too small for its tokenizer or n_embd does not fit.
    """
    if n_embd % 32:
        raise ValueError(f"n_embd must be a multiple of 32, not {n_embd}")
    spec = _SPECS[name]
    n_tokens = n_vocab or spec.n_vocab
    dims = spec.dims(n_embd, n_tokens)
    norm = "layer_norm_rms_epsilon" if spec.rms_norm else "layer_norm_epsilon"
    keys: dict[str, _Value] = {
        "general.name": f"tiny {name}",
        "general.quantization_version": 2,
        ".context_length": _CONTEXT,
        ".embedding_length": n_embd,
        ".block_count": spec.n_layer,
        ".feed_forward_length": _N_FF,
        ".attention.head_count": spec.n_head,
        ".attention.head_count_kv": spec.n_head_kv,
        f".attention.{norm}": 1e-5,
    }
    if spec.head_dim:
        keys |= {".attention.key_length": dims["h"], ".attention.value_length": dims["h"]}
    if spec.rotary:
        keys |= {".rope.dimension_count": 2 * dims["r"], ".rope.freq_base": 10000.0}
    if spec.arch in ("llama", "minicpm", "phi3"):  # converters write this for some models only
        keys[".vocab_size"] = n_tokens

    writer = GGUFWriter(path, spec.arch)
    for key, value in {**keys, **spec.keys}.items():
        full_key = spec.arch + key if key.startswith(".") else key
        writer.add_key_value(full_key, value, _VALUE_TYPES[type(value)])
    if spec.tokenizer == "spm":
        add_spm(writer, n_tokens, n_han)
    else:
        add_bpe(writer, n_tokens, spec.tokenizer)
    for tensor_name, shape in spec.tensors(dims):
        kind = _tensor_type(tensor_name, shape, embd_type, output_type)
        data = _tensor(spec, tensor_name, shape, kind, seed)
        writer.add_tensor(tensor_name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
