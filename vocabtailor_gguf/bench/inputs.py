"""What the tests are given: texts as tokens, and token sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.profiling.frequent import (
    documentation_texts,
    frequent_token_set,
    ranked_tokens,
)
from vocabtailor_gguf.runtime.tokenizer import load_tokenizer
from vocabtailor_gguf.sets.token_set import TokenSet

N_DEFAULT_ROWS = 8000
_SOURCE = "Python's help topics and sources"


def first_topic(n: int) -> str:
    """Return the first `n` characters of the help topics that come with Python."""
    return next(iter(documentation_texts()))[0][:n]


def prompt_tokens(store_path: Path, texts: Sequence[str], n: int) -> list[int]:
    """Return the first `n` tokens of texts, or all where they have fewer."""
    tokenizer = load_tokenizer(store_path)
    tokens: list[int] = []
    for text in texts:
        tokens += tokenizer.tokenize(text.encode("utf-8"), add_bos=not tokens)
        if len(tokens) >= n:
            break
    tokenizer.close()
    return tokens[:n]


def documentation_tokens(store_path: Path, n: int) -> list[int]:
    """Return the first `n` tokens of the help topics that come with Python."""
    return prompt_tokens(store_path, [text for text, _ in documentation_texts()], n)


def default_set(store_path: Path, folder: Path) -> Path:
    """Write the token set of the help topics' most frequent tokens; return its path."""
    path = folder / "frequent.tokens.json"
    with VocabStore(store_path) as store:
        chosen = frequent_token_set(store, documentation_texts(), N_DEFAULT_ROWS, source=_SOURCE)
    chosen.save(path)
    return path


def sized_sets(store_path: Path, folder: Path, sizes: Sequence[int]) -> dict[int, Path]:
    """Write a token set of each size, each one in the next; return their paths.

    Frequent tokens of the help topics come first, then the others by their ids, in whose order most
    tokenizers were trained.
    """
    paths = {}
    with VocabStore(store_path) as store:
        ranked = _ranking(store)
        for n in sizes:
            paths[n] = folder / f"{n}.tokens.json"
            TokenSet(ranked[:n], store.tokenizer_sha256).save(paths[n])
    return paths


def _ranking(store: VocabStore) -> npt.NDArray[np.int32]:
    """Return all (n_vocab,) int32 ids, the frequent ones first."""
    frequent = np.array(ranked_tokens(store, documentation_texts()), dtype=np.int32)
    rest = np.setdiff1d(np.arange(store.n_vocab, dtype=np.int32), frequent)
    return np.concatenate([frequent, rest])
