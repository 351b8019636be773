"""What a model was found to lack, kept in the cache from chat to chat."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.gguf.keys import PAIR_ID
from vocabtailor_gguf.gguf.pair import read_core
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.sets.learning import learned_counts
from vocabtailor_gguf.sets.token_set import TokenSet
from vocabtailor_gguf.split.cache import learned_folder

_DECAY = 0.8  # of counts, from chat to chat: tokens that were not needed for long are dropped


def learned_file(core: str) -> Path:
    """Return where the learned set of a core lies, whether there is one or not.

    Raises:
        BadFileError: The core is malformed.
    """
    pair = str(read_core(core).require(PAIR_ID, str))
    stem = Path(core).name.removesuffix(".gguf").removesuffix(".core")
    return learned_folder() / f"{stem}-{pair[:16]}.tokens.json"


def load_learned(path: Path) -> TokenSet | None:
    """Return a learned set; None where there is none that can be read."""
    with contextlib.suppress(VocabTailorError, OSError):
        return TokenSet.load(path)
    return None


def keep_learned(llm: TailoredLlama, path: Path) -> None:
    """Keep what a model's set learned, and nothing else of it.

    A cache that cannot be written to keeps nothing.
    """
    with contextlib.suppress(VocabTailorError, OSError):
        found = llm.learned_token_set(decay=_DECAY)
        counts = {"learned": found.provenance["learned"]}
        path.parent.mkdir(parents=True, exist_ok=True)
        TokenSet(sorted(learned_counts(found)), found.tokenizer, counts).save(path)
