"""Other forms of words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf.errors import TokenIdError, VocabTailorError
from vocabtailor_gguf.runtime.tokenizer import Forms, Tokenizer, load_tokenizer

ALPHABETS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN")
# archaic letters and those of phonetic alphabets, whose pairs follow no rule
RARE = {*range(0x180, 0x1CD), *range(0x220, 0x300), *range(0x370, 0x386), *range(0x3CF, 0x400)}
RARE |= {*range(0x1E96, 0x1EA0), *range(0x1F00, 0x2000), *range(0x2100, 0x10000)}


def simple(letter: str, mapped: str) -> str:
    """The simple case mapping: one letter to one, as long as it can be undone."""
    undone = mapped.upper() if mapped != letter.upper() else mapped.lower()
    return mapped if len(mapped) == 1 and undone == letter else letter


def expected_forms(piece: str) -> set[str]:
    word = piece.removeprefix(" ")
    lower = "".join(simple(c, c.lower()) for c in word)
    upper = "".join(simple(c, c.upper()) for c in word)
    forms = {word, lower, upper, upper[:1] + lower[1:]}
    return forms | {" " + f for f in forms}


def plain(piece: str) -> bool:
    """Whether all letters are of alphabets whose whole case mapping is simple."""
    return all(
        ord(c) < 0x80
        or (unicodedata.name(c, "").startswith(ALPHABETS) and c.isalpha() and ord(c) not in RARE)
        for c in piece
    )


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma"])
def tokenizer(request: pytest.FixtureRequest) -> Iterator[llama_cpp.Llama]:
    """Two tiny tokenizers, SentencePiece and byte-level BPE, and that of Gemma 3."""
    name = request.param
    if name == "gemma":
        path: Path = request.getfixturevalue("gemma_split").vocab
    else:
        path = request.getfixturevalue("tiny_split")(name).vocab
    loaded = load_tokenizer(path)
    yield loaded
    loaded.close()


@pytest.mark.model
def test_forms_are_those_of_unicode(tokenizer: llama_cpp.Llama) -> None:
    texts: dict[str, int] = {}
    vocab = tokenizer._model.vocab
    for token, raw in enumerate(Tokenizer(tokenizer._model).pieces()):
        byte = llama_cpp.llama_vocab_get_attr(vocab, token) & llama_cpp.LLAMA_TOKEN_ATTR_BYTE
        text = raw.decode("utf-8", errors="replace")
        if raw and not byte and "\ufffd" not in text and len(raw) <= 60:
            texts.setdefault(text, token)
    variants = Forms(vocab)
    rng = np.random.default_rng(0)
    compared = found = 0
    for text in rng.permutation(list(texts))[:20_000].tolist():
        if not text.strip(" ") or not plain(text):
            continue
        expected = {texts[f] for f in expected_forms(text) if f in texts} - {texts[text]}
        assert set(variants.find([texts[text]]).tolist()) == expected, repr(text)
        compared += 1
        found += len(expected)
    assert compared > 100 and found > 50
    variants.close()


def test_forms_of_many_tokens(tiny_split: Callable[[str], Any]) -> None:
    tokenizer = load_tokenizer(tiny_split("llama").vocab)
    variants = Forms(tokenizer._model.vocab)
    every = np.arange(tokenizer.n_vocab(), dtype=np.int32)
    assert variants.find(every).size == 0  # nothing is left to find
    one_by_one = [variants.find([int(i)]) for i in every[300:340]]
    together = variants.find(every[300:340])
    assert set(together.tolist()) == set(np.concatenate(one_by_one).tolist()) - {*range(300, 340)}
    assert together.tolist() == sorted(together.tolist())
    assert variants.find([]).size == 0
    assert variants.n_bytes > 0
    for bad in ([-1], [tokenizer.n_vocab()], ["a"]):
        with pytest.raises(TokenIdError):
            variants.find(bad)
    variants.close()
    tokenizer.close()


def test_a_core_has_no_words(tiny_split: Callable[[str], Any]) -> None:
    core = llama_cpp.Llama(str(tiny_split("llama").core), vocab_only=True, n_ctx=8, verbose=False)
    with pytest.raises(VocabTailorError, match="no tokenizer"):
        Forms(core._model.vocab)
    core.close()
