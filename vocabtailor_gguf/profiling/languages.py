"""Tokens of languages without a corpus, from the word lists of ``wordfreq``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError


def word_forms(languages: Sequence[str], n_words: int) -> Iterator[str]:
    """Yield the forms of the most frequent words, the languages in turn, frequent words first.

    A word stands inside a sentence, at its begin, and at the begin of a text; so it is given with
    a leading space and without, as it is and capitalised.

    Raises:
        UnsupportedError: ``wordfreq`` is not installed.
        VocabTailorError: It has no list of a language.
    """
    try:
        import wordfreq
    except ImportError as e:
        raise UnsupportedError(
            "languages need the package wordfreq: pip install 'vocabtailor_gguf[languages]'"
        ) from e
    known = wordfreq.available_languages()
    for language in languages:
        if language not in known:
            raise VocabTailorError(
                f"language {language!r}: wordfreq has {', '.join(sorted(known))}"
            )
    lists = [wordfreq.top_n_list(language, n_words) for language in languages]
    for word in itertools.chain.from_iterable(itertools.zip_longest(*lists)):
        if word is not None:
            capital = word[:1].upper() + word[1:]
            for form in dict.fromkeys((word, capital)):
                yield form
                yield " " + form


def word_tokens(tokenizer: Any, languages: Sequence[str], n_words: int) -> npt.NDArray[np.int32]:
    """Return the (n,) int32 ids of word lists, those of the most frequent words first.

    Args:
        tokenizer: From `load_tokenizer`.
        languages: Codes of wordfreq's lists.
        n_words: Words of each language.

    Raises:
        UnsupportedError: ``wordfreq`` is not installed.
        VocabTailorError: It has no list of a language.
    """
    found: dict[int, None] = {}
    for form in word_forms(languages, n_words):
        found.update(dict.fromkeys(tokenizer.tokenize(form.encode("utf-8"), add_bos=False)))
    return np.fromiter(found, dtype=np.int32, count=len(found))
