"""Translation: BLEU and chrF, by sacrebleu."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from vocabtailor_gguf.errors import UnsupportedError
from vocabtailor_gguf.evaluation.metrics.score import Answer, Floats, Score

_CHARACTER_SHARE = 0.5  # of a text's letters, to count as written in them


def bleu_tokenizer(references: Sequence[str]) -> str:
    """Return sacrebleu's tokenizer for texts: "zh", "char" for Japanese and Thai, else "13a".

    Languages without spaces between words have no n-grams of words otherwise.
    """
    letters = [c for text in references for c in text if c.isalpha()]
    names = [unicodedata.name(c, "") for c in letters]
    n_han = sum(name.startswith("CJK UNIFIED") for name in names)
    n_kana = sum(name.startswith(("HIRAGANA", "KATAKANA")) for name in names)
    n_thai = sum(name.startswith(("THAI", "LAO", "KHMER", "MYANMAR")) for name in names)
    least = _CHARACTER_SHARE * len(letters)
    if not letters or n_han + n_kana + n_thai < least:
        return "13a"
    # Japanese has more kana than Chinese ever has
    return "zh" if n_han >= least and n_kana < 0.1 * len(letters) else "char"


def translation_scores(answers: Sequence[Answer], tokenize: str | None = None) -> list[Score]:
    """Return BLEU and chrF.

    Args:
        answers: Answers and references.
        tokenize: sacrebleu's tokenizer, by default `bleu_tokenizer`'s choice.

    Raises:
        UnsupportedError: sacrebleu is not installed, or has no such tokenizer.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as e:
        raise UnsupportedError(
            "BLEU and chrF need the package sacrebleu: pip install 'vocabtailor_gguf[eval]'"
        ) from e
    references = [a.reference for a in answers]
    name = tokenize or bleu_tokenizer(references)
    try:
        bleu = BLEU(tokenize=name)
    except (KeyError, ValueError, ImportError, RuntimeError) as e:
        raise UnsupportedError(f"sacrebleu has no tokenizer {name!r} here: {e}") from e
    return [_score("BLEU", bleu, answers), _score("chrF", CHRF(), answers)]


def _score(name: str, metric: Any, answers: Sequence[Answer]) -> Score:
    """Return a score from a metric's own statistics of sentences, which its bootstrap uses too."""
    texts = [" ".join(a.text.split()) for a in answers]
    found = metric._extract_corpus_statistics(texts, [[a.reference for a in answers]])
    return Score(name, np.array(found, dtype=np.float64), functools.partial(_figure, metric))


def _figure(metric: Any, total: Floats) -> float:
    return float(metric._compute_score_from_stats([round(x) for x in total]).score)
