"""Drafts from the text: how many tokens one pass of the core may take without other bits.

What followed the same words before is decoded together with the token that was chosen. Exact mode
promises stock's bits, so a pass is never longer than what was tried on this core, with this build,
processor, threads and context. What was found is kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import llama_cpp

from vocabtailor_gguf.atomic import temporary_files
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.binding.types import weight_buffer
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.runtime.engine import Engine
from vocabtailor_gguf.split.cache import cache_folder

Drafts = Literal["auto", "active", "text", "none"]

MOST_TOGETHER = 8  # tokens; longer passes cost what they save

_FILE = "together.json"
_WEIGHT = (512, 512)  # columns and rows that every layout takes
_MOST_TYPES = 64  # of enum ggml_type, which has some 40
_OTHER_BITS = "this core rounds several tokens of a pass otherwise than single ones"
_OF_CONTEXT = (
    *("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_threads", "n_threads_batch"),
    *("flash_attn_type", "type_k", "type_v", "offload_kqv", "op_offload", "swa_full"),
    *("rope_scaling_type", "rope_freq_base", "rope_freq_scale", "embeddings"),
)


class Together(NamedTuple):
    """How many tokens a pass may take while drafting."""

    n: int = 1
    why_alone: str = ""  # where it is 1


def tokens_together(
    native: NativeSession, engine: Engine, params: Any, drafts: Drafts, draft_max: int | None
) -> Together:
    """Return how many tokens a pass may take: those that keep the bits of single ones, or as asked.

    Args:
        native: A session with a context, without a text where it was not tried before.
        engine: Its engine.
        params: ctypes llama_context_params of its context.
        drafts: What is drafted at all.
        draft_max: Tokens that were asked for, whatever bits they have; None for a trial.
    """
    if drafts not in ("auto", "text"):
        return Together(why_alone=f"drafts are {drafts}")
    if not native.can_truncate:
        return Together(why_alone="the memory of this model cannot take tokens back")
    if params.n_seq_max > 1:
        return Together(why_alone="the context has room for several sequences")
    if draft_max is not None:
        return Together(draft_max, "draft_max is 1" if draft_max == 1 else "")
    n = _tried(native, engine, params)
    if n is None:
        return Together(why_alone="it was not tried yet, and a text was in the way")
    return Together(n, "" if n > 1 else _OTHER_BITS)


def _tried(native: NativeSession, engine: Engine, params: Any) -> int | None:
    """Return how many tokens keep their bits together; None where that cannot be tried now."""
    path = cache_folder() / _FILE
    key = _key(engine, params)
    known = _read(path)
    if key not in known:
        if native.n_past:
            return None
        known[key] = native.probe(MOST_TOGETHER)
        # a folder that cannot be written to costs the next start its time, nothing else
        with contextlib.suppress(OSError, BadFileError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_files(path, patience=0.0) as (temporary,):
                temporary.write_text(json.dumps(known, indent=1, sort_keys=True))
    return known[key]


def _key(engine: Engine, params: Any) -> str:
    library = Path(llama_cpp.__file__).parent / "lib"
    built = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in library.glob("*ggml*"))
    facts: Mapping[str, Any] = {
        "core": engine.identity,
        "build": [llama_cpp.__version__, built],
        "cpu": [platform.machine(), llama_cpp.llama_print_system_info().decode(), _processor()],
        "buffers": _buffers(),
        "context": {name: getattr(params, name) for name in _OF_CONTEXT},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _buffers() -> list[str]:
    """Return where weights of each type lie: a kernel or a sandbox may refuse what the CPU has."""
    found = []
    for kind in range(_MOST_TYPES):
        with contextlib.suppress(VocabTailorError):  # not the type of a weight
            found.append(f"{kind} {weight_buffer(kind, *_WEIGHT)}")
    return found


def _processor() -> str:
    """Return the processor's name, where the system tells."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith(("model name", "CPU part")):
                return line.partition(":")[2].strip()
    return platform.processor()


def _read(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return what was kept; nothing where that cannot be read."""
    try:
        kept = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {k: v for k, v in kept.items() if isinstance(v, int) and 1 <= v <= MOST_TOGETHER}
