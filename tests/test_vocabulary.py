"""Other forms of words."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.errors import TokenIdError, VocabTailorError
from vocabtailor_gguf.runtime.tokenizer import Forms, Tokenizer, load_tokenizer

ALPHABETS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN")
# archaic letters and those of phonetic alphabets, whose pairs follow no rule
RARE = {*range(0x180, 0x1CD), *range(0x220, 0x300), *range(0x370, 0x386), *range(0x3CF, 0x400)}
RARE |= {*range(0x1E96, 0x1EA0), *range(0x1F00, 0x2000), *range(0x2100, 0x10000)}

_NORMAL = llama_cpp.LLAMA_TOKEN_ATTR_NORMAL
_SPECIAL = (
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
    | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
    | llama_cpp.LLAMA_TOKEN_ATTR_BYTE
)


def _attr(vocab: Any, token: int) -> int:
    return int(llama_cpp.llama_vocab_get_attr(vocab, token))


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


def test_frequent_tokens_are_the_first_ordinary_ones(tokenizer: llama_cpp.Llama) -> None:
    found = Tokenizer(tokenizer._model)
    normal = [t for t in range(found.n_vocab) if _attr(found.vocab, t) & _NORMAL]
    for n in (0, 1, 40, len(normal), found.n_vocab):
        assert found.common(n).tolist() == normal[:n]


def test_always_on_tokens_are_those_that_their_pieces_tell(tokenizer: llama_cpp.Llama) -> None:
    found = Tokenizer(tokenizer._model)
    buffer = ctypes.create_string_buffer(256)
    expected = []
    for token in range(found.n_vocab):
        attr = _attr(found.vocab, token)
        n = llama_cpp.llama_token_to_piece(found.vocab, token, buffer, len(buffer), 0, True)
        space = n > 0 and not buffer.raw[:n].strip(b" \t\n\v\f\r")
        if found.is_end(token):
            expected.append(token)
        elif not attr & llama_cpp.LLAMA_TOKEN_ATTR_UNUSED and (attr & _SPECIAL or n == 1 or space):
            expected.append(token)
    assert found.always_on.tolist() == expected


def test_packed_pieces_are_llama_cpps(tokenizer: llama_cpp.Llama) -> None:
    found = Tokenizer(tokenizer._model)
    out = native.ffi.new("vt_pieces **")
    native.call("vt_pieces_new", native.pointer("struct llama_vocab *", found.vocab), out)
    pieces = native.ffi.gc(out[0], native.lib().vt_pieces_free)
    text, n = native.ffi.new("char **"), native.ffi.new("size_t *")
    is_end = native.ffi.new("bool *")
    for token in range(found.n_vocab):
        native.call("vt_pieces_get", pieces, token, text, n, is_end)
        assert native.ffi.buffer(text[0], n[0])[:] == found.piece(token)
        assert is_end[0] == found.is_end(token)
    assert native.lib().vt_pieces_n_bytes(pieces) < 32 * found.n_vocab + 1024
    for bad in (-1, found.n_vocab):
        with pytest.raises(TokenIdError, match="expected 0 to"):
            native.call("vt_pieces_get", pieces, bad, text, n, is_end)
