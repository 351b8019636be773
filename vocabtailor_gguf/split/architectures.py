"""What llama.cpp does around the vocabulary tables, per architecture.

Every entry is read off ``src/models/<arch>.cpp`` of llama.cpp. None is trusted: the proof at
split time compares the split model with the unsplit one, bit by bit, and refuses what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vocabtailor_gguf.errors import BadFileError, UnsupportedError
from vocabtailor_gguf.gguf.header import GGUFHeader

_LOGIT_SCALE_MULTIPLIES = frozenset(
    {"command-r", "cohere2", "cohere2moe", "grok", "talkie", "muse-glimmer"}
)
_LOGIT_SCALE_DIVIDES = frozenset(
    {"granite", "granitemoe", "granitehybrid", "granite-swa", "minicpm"}
)
_SOFTCAPPED = frozenset({"gemma2", "gemma3", "gemma4", "grok", "muse-glimmer"})
_DEFAULT_SOFTCAP = frozenset({"gemma2", "gemma3n", "gemma4"})  # 30; gemma3n reads no other

_ENCODERS = frozenset(
    {
        "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
        "neo-bert", "eurobert", "gemma-embedding", "llama-embed", "t5", "t5encoder", "clip",
        "wavtokenizer-dec",
    }
)  # fmt: skip

# llama.cpp never looks for output.weight in these, so their head cannot have a type of its own
ALWAYS_TIED = frozenset({"gemma", "gemma2", "command-r", "cohere2"})

# rows are put in at lookups by token id, so other uses of an id see that of a stub row
_OTHER_USES_OF_IDS = {
    "qwen4exp": "its per-layer embeddings are looked up by hashes of token ids",
    "granite-switch": "it chooses its adapters by token ids",
    "deepseek4": "it chooses experts by token ids",
}


@dataclass(frozen=True)
class VocabularyMath:
    """What surrounds the LM head.

    Attributes:
        logit_scale: Factor on the logits, 1 for none.
        logit_softcap: Logits become ``cap * tanh(logit / cap)``, 0 for none.
    """

    logit_scale: float = 1.0
    logit_softcap: float = 0.0


def check_supported(header: GGUFHeader) -> str:
    """Return the architecture of a model that can be split.

    Raises:
        BadFileError: The file is not a model.
        UnsupportedError: The model cannot be split; the text says why.
    """
    where = header.path
    if "vocabtailor.kind" in header.keys:
        raise UnsupportedError(f"{where}: is already a {header.get('vocabtailor.kind')} file")
    n_shards = header.get("split.count", 1)
    if isinstance(n_shards, int) and n_shards > 1:
        raise UnsupportedError(
            f"{where}: is one of {n_shards} shards; merge them first with "
            "llama-gguf-split --merge FIRST_SHARD OUT"
        )
    arch = str(header.require("general.architecture", str))
    if arch in _ENCODERS:
        raise UnsupportedError(f"{where}: {arch} is an encoder: it has no LM head to tailor")
    if arch in _OTHER_USES_OF_IDS:
        raise UnsupportedError(f"{where}: {arch} is not supported: {_OTHER_USES_OF_IDS[arch]}")
    return arch


def vocabulary_math(
    header: GGUFHeader, arch: str, n_embd: int, overrides: Mapping[str, object] | None = None
) -> VocabularyMath:
    """Return what surrounds the LM head of a model.

    Args:
        header: Of the model, or of its core.
        arch: Its architecture.
        n_embd: Its width.
        overrides: What a user puts in the place of keys; as in llama.cpp, only what has the type
            of its key counts.

    Raises:
        BadFileError: A key is no number.
    """
    own = {k: v for k, v in (overrides or {}).items() if isinstance(v, float)}
    return VocabularyMath(_logit_scale(header, arch, n_embd, own), _softcap(header, arch, own))


def _number(header: GGUFHeader, key: str, default: float, own: Mapping[str, float]) -> np.float32:
    value = own.get(key, header.get(key, default))
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise BadFileError(f"{header.path}: key {key}: found {value!r}, expected a number")
    return np.float32(value)


def _logit_scale(header: GGUFHeader, arch: str, n_embd: int, own: Mapping[str, float]) -> float:
    default = {"minicpm": 256.0 / n_embd, "grok": 0.5773502691896257}.get(arch, 0.0)
    value = _number(header, f"{arch}.logit_scale", default, own)
    if value == 0:
        return 1.0
    if arch in _LOGIT_SCALE_DIVIDES:
        return float(np.float32(1) / value)
    return float(value) if arch in _LOGIT_SCALE_MULTIPLIES else 1.0


def _softcap(header: GGUFHeader, arch: str, own: Mapping[str, float]) -> float:
    default = 30.0 if arch in _DEFAULT_SOFTCAP else 0.0
    key = f"{arch}.final_logit_softcapping"
    return float(_number(header, key, default, own)) if arch in _SOFTCAPPED else default
