"""Token sets of languages without a corpus, from the word lists of ``wordfreq``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError
from vocabtailor_gguf.profiling.inputs import Example


def word_examples(languages: Sequence[str], n_words: int) -> Iterator[Example]:
    """Yield the forms of the most frequent words of each language, each as an output.

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
    for language in languages:
        for word in wordfreq.top_n_list(language, n_words):
            capital = word[:1].upper() + word[1:]
            for form in dict.fromkeys((word, capital)):
                yield Example("", form)
                yield Example("", " " + form)
