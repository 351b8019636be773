"""Metrics of the evaluation, against the packages they come from and by hand."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from vocabtailor_gguf.errors import UnsupportedError
from vocabtailor_gguf.evaluation.metrics.code import code_of
from vocabtailor_gguf.evaluation.metrics.extraction import f1, normalised
from vocabtailor_gguf.evaluation.metrics.maths import final_answer
from vocabtailor_gguf.evaluation.metrics.score import Answer, difference, mean_score
from vocabtailor_gguf.evaluation.metrics.scores import scores
from vocabtailor_gguf.evaluation.metrics.translation import bleu_tokenizer
from vocabtailor_gguf.evaluation.tasks import METRICS

TEXTS = [
    ("Il gatto dorme sul divano rosso.", "Il gatto dorme sul divano blu."),
    ("Piove molto oggi, e fa freddo.", "Oggi piove molto e fa freddo."),
    ("Un testo\nche non c'entra", "La nave parte domani alle otto."),
]
CHINESE = [("他今天在北京吃了饭。", "他今天在北京吃饭。"), ("天气很好", "今天天气很好。")]


@pytest.mark.parametrize(("texts", "name"), [(TEXTS, "13a"), (CHINESE, "zh")])
def test_translation_is_sacrebleus(texts: list[tuple[str, str]], name: str) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    answers = [Answer(a, b) for a, b in texts]
    bleu, chrf = scores("translation", {}, answers)
    assert bleu_tokenizer([b for _, b in texts]) == name
    hypotheses, references = [" ".join(a.split()) for a, _ in texts], [[b for _, b in texts]]
    expected = BLEU(tokenize=name).corpus_score(hypotheses, references).score
    assert (bleu.name, bleu.value) == ("BLEU", pytest.approx(expected))
    expected = CHRF().corpus_score(hypotheses, references).score
    assert (chrf.name, chrf.value) == ("chrF", pytest.approx(expected))
    assert 0 < bleu.value < 100


def test_the_tokenizer_of_bleu() -> None:
    assert bleu_tokenizer(["これは日本語の文です。", "漢字とかな"]) == "char"
    assert bleu_tokenizer(["ภาษาไทย"]) == "char"
    assert bleu_tokenizer(["The Beijing 北京 daily"]) == "13a"
    assert bleu_tokenizer([""]) == "13a"
    answers = [Answer(a, b) for a, b in TEXTS]
    assert scores("translation", {"tokenize": "char"}, answers)[0].value > 30
    with pytest.raises(UnsupportedError, match="no tokenizer 'words'"):
        scores("translation", {"tokenize": "words"}, answers)


def test_summarisation_is_rouge() -> None:
    found = scores("summarisation", {}, [Answer("the cats sat", "the cat sat down")])
    assert [s.name for s in found] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]
    # stemmed: 3 of 3 and of 4 words, 2 of 2 and of 3 pairs
    assert [s.value for s in found] == pytest.approx([600 / 7, 80.0, 600 / 7])


@pytest.mark.parametrize(
    ("answer", "reference", "match", "overlap"),
    [
        ("The Amazon rainforest.", "Amazon rainforest", True, 1.0),
        ("about 1,000 men", "1000 men", False, 0.8),
        ("", "x", False, 0.0),
        ("the", "a", True, 1.0),
        ("a b b", "b c", False, 0.5),
    ],
)
def test_extraction(answer: str, reference: str, match: bool, overlap: float) -> None:
    assert (normalised(answer) == normalised(reference)) is match
    assert f1(answer, reference) == pytest.approx(overlap)
    exact, words = scores("extraction", {}, [Answer(answer, reference)])
    assert (exact.name, exact.value) == ("EM", 100.0 * match)
    assert (words.name, words.value) == ("F1", pytest.approx(100 * overlap))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("24 x 2 = <<24*2=48>>48.\n#### 16", Decimal(16)),
        ("#### $1,234.50 (5)", Decimal("1234.50")),
        ("so it is \u22123", Decimal(-3)),
        ("first 5, then .5", Decimal("0.5")),
        ("#### none", None),
        ("so 3-4", Decimal(4)),
        ("so 10%-4.5", Decimal("4.5")),
        ("(2)\u22127 and [2]-7", Decimal(7)),
        ("a step-4", Decimal(4)),
        ("3--4", Decimal(-4)),
        ("x=-4", Decimal(-4)),
        ("-$4 or $-5", Decimal(-5)),
        ("(-.5)", Decimal("-0.5")),
        ("3 - 4", Decimal(4)),
        ("nothing", None),
    ],
)
def test_final_answers(text: str, number: Decimal | None) -> None:
    assert final_answer(text) == number


def test_maths() -> None:
    answers = [Answer("it is 16.0", "#### 16"), Answer("", "#### 2"), Answer("", "none")]
    assert scores("maths", {}, answers)[0].value == pytest.approx(100 / 3)


def test_code() -> None:
    assert code_of("Here:\n```python\nx = 1\n```\n```\ny\n```") == "x = 1\n"
    assert code_of("```\nx = 1") == "x = 1"
    assert code_of("x = 1\n") == "x = 1\n"
    found = scores("code", {}, [Answer("", "", True), Answer("", "", False), Answer("", "")])
    assert (found[0].name, found[0].value) == ("pass@1", pytest.approx(100 / 3))


@pytest.mark.parametrize("metric", METRICS)
def test_answers_that_are_empty(metric: str) -> None:
    for score in scores(metric, {}, [Answer("", "12 words", False)]):
        assert score.value == 0


def test_the_difference_and_its_interval() -> None:
    random = np.random.default_rng(5)
    base = random.random(200) < 0.5
    worse = base & (random.random(200) < 0.8)
    a, b = mean_score("x", base.astype(float)), mean_score("x", worse.astype(float))
    found = difference(b, a)
    assert found.value == pytest.approx(100 * (worse.mean() - base.mean()))
    assert found.low < found.value < found.high < 0
    # the standard error of a mean of paired differences
    error = 100 * (worse.astype(float) - base).std() / np.sqrt(200)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert difference(b, a) == found
    same = difference(a, a)
    assert (same.value, same.low, same.high) == (0, 0, 0)
