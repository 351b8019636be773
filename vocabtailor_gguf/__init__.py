"""Split GGUF models, load embedding rows lazily and compute the LM head over an active set.

Names are imported when they are first used, so that ``import vocabtailor_gguf`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocabtailor_gguf.binding.store import VocabStore as VocabStore
    from vocabtailor_gguf.errors import VocabTailorError as VocabTailorError
    from vocabtailor_gguf.llama import TailoredLlama as TailoredLlama
    from vocabtailor_gguf.profiling.corpus import profile_corpus as profile_corpus
    from vocabtailor_gguf.sets.token_set import TokenSet as TokenSet
    from vocabtailor_gguf.split.merge import merge_model as merge_model
    from vocabtailor_gguf.split.split import split_model as split_model
    from vocabtailor_gguf.split.verify import verify_model as verify_model

_HOMES = {
    "TailoredLlama": "llama",
    "TokenSet": "sets.token_set",
    "VocabStore": "binding.store",
    "VocabTailorError": "errors",
    "merge_model": "split.merge",
    "profile_corpus": "profiling.corpus",
    "split_model": "split.split",
    "verify_model": "split.verify",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
