"""The most frequent tokens of a text: the simplest static set."""

from __future__ import annotations

import collections
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.runtime.tokenizer import load_tokenizer
from vocabtailor_gguf.sets.token_set import TokenSet


def frequent_token_set(
    store: VocabStore, texts: Iterable[tuple[str, float]], n_rows: int, *, source: str
) -> TokenSet:
    """Return the `n_rows` tokens that weigh most in `texts`.

    Args:
        store: The vocabulary; its tokenizer is loaded for this call.
        texts: Pieces of text, each with the weight of one occurrence.
        n_rows: Tokens to keep; fewer where the texts hold fewer.
        source: Name of the texts, for the provenance.

    Returns:
        The set, with the tokenizer's fingerprint.

    Raises:
        ValueError: The texts are empty.
    """
    ranking = ranked_tokens(store, texts)
    if not ranking:
        raise ValueError(f"{source}: no text")
    chosen = ranking[:n_rows]
    provenance = {"source": source, "rows": len(chosen), "distinct": len(ranking)}
    return TokenSet(np.array(chosen, dtype=np.int32), store.tokenizer_sha256, provenance)


def ranked_tokens(store: VocabStore, texts: Iterable[tuple[str, float]]) -> list[int]:
    """Return the ids of all tokens of `texts`, those that weigh most first.

    Arguments as of `frequent_token_set`.
    """
    tokenizer = load_tokenizer(store.path)
    weights: collections.Counter[int] = collections.Counter()
    for text, weight in texts:
        for token in tokenizer.tokenize(text.encode("utf-8"), add_bos=False):
            weights[token] += weight  # type: ignore[assignment]
    tokenizer.close()
    # ties by id, so that the same texts always give the same order
    return sorted(weights, key=lambda t: (-weights[t], t))


def documentation_texts() -> Iterable[tuple[str, float]]:
    """Yield text that every Python has: its help topics, then sources of its library.

    The sources end after a million characters, which tokenise in about two seconds.
    """
    from pydoc_data import topics

    for name in sorted(topics.topics):
        yield topics.topics[name], 1.0
    left = 1_000_000
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        yield text[:left], 1.0
        left -= len(text)
        if left <= 0:
            break
