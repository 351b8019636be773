"""Write a token set of the most frequent tokens of text files, or of languages' word lists.

Usage: token_set.py VOCAB OUT ROWS FILE...             tokens of text files
       token_set.py VOCAB OUT ROWS --languages en,it   tokens of wordfreq's word lists
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from vocabtailor_gguf import VocabStore
from vocabtailor_gguf.frequent import frequent_token_set

_N_WORDS = 30_000  # of each language


def _word_texts(languages: Iterable[str]) -> Iterable[tuple[str, float]]:
    """Yield each word as it stands in a sentence and at its start, weighted by its frequency."""
    import wordfreq

    for language in languages:
        for word in wordfreq.top_n_list(language, _N_WORDS):
            weight = wordfreq.word_frequency(word, language)
            yield " " + word, weight
            yield " " + word.capitalize(), weight / 10
            yield word, weight / 100


def main() -> None:
    """Write the set."""
    vocab, out, rows, *sources = sys.argv[1:]
    if sources[0] == "--languages":
        texts, name = _word_texts(sources[1].split(",")), f"wordfreq: {sources[1]}"
    else:
        texts = ((Path(p).read_text(encoding="utf-8"), 1.0) for p in sources)
        name = ", ".join(Path(p).name for p in sources)
    with VocabStore(vocab) as store:
        chosen = frequent_token_set(store, texts, int(rows), source=name)
    chosen.save(out)
    print(f"{out}: {len(chosen):,} rows from {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
