"""Tokens of languages without a corpus, from the word lists of ``wordfreq``."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError

# Words stand after a space, now and then capitalised, at times at the begin of a line or a piece.
_LEADING_SPACE, _CAPITAL, _NO_SPACE = 1.0, 0.1, 0.01


def word_forms(languages: Sequence[str], n_words: int) -> Iterator[tuple[str, float]]:
    """Yield the forms of the most frequent words of each language, and how much each weighs.

    A word is given with a leading space and without, as it is and capitalised; the weight is its
    frequency in the language times that of the form.

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
    for language in languages:
        # word_frequency would cut each word anew, which asks for other packages in Asian languages
        frequency = wordfreq.get_frequency_dict(language)
        for word in wordfreq.top_n_list(language, n_words):
            weight = frequency[word]
            capital = word[:1].upper() + word[1:]
            forms = {word: _LEADING_SPACE, capital: _CAPITAL}
            if capital == word:
                forms = {word: _LEADING_SPACE}
            for form, share in forms.items():
                yield " " + form, weight * share
                yield form, weight * share * _NO_SPACE


def word_weights(tokenizer: Any, languages: Sequence[str], n_words: int) -> dict[int, float]:
    """Return the tokens of word lists, and the sum of the weights of the forms they stand in.

    Args:
        tokenizer: From `load_tokenizer`.
        languages: Codes of wordfreq's lists.
        n_words: Words of each language.

    Raises:
        UnsupportedError: ``wordfreq`` is not installed.
        VocabTailorError: It has no list of a language.
    """
    weights: collections.defaultdict[int, float] = collections.defaultdict(float)
    for form, weight in word_forms(languages, n_words):
        for token in tokenizer.tokenize(form.encode("utf-8"), add_bos=False):
            weights[token] += weight
    return dict(weights)


def word_tokens(tokenizer: Any, languages: Sequence[str], n_words: int) -> npt.NDArray[np.int32]:
    """Return the (n,) int32 ids of word lists, those that weigh most first; see `word_weights`."""
    weights = word_weights(tokenizer, languages, n_words)
    # ties by id, so that the same lists always give the same order
    return np.array(sorted(weights, key=lambda t: (-weights[t], t)), dtype=np.int32)
