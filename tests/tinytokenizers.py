"""Small made-up tokenizers for the tests: SentencePiece-style and byte-level BPE.

Both turn any text into tokens and back. Their vocabularies can have any size above the few
hundred tokens that bytes and characters take.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice, pairwise, product

from gguf import GGUFWriter, TokenType

# Random text has no use for real words, but these give merges of several depths and lengths.
_WORDS = (
    " the and of to in is it that was for on are as with his they at be this have from or one had"
    " by word but not what all were we when your can said there use an each which she do how their"
    " if will up other about out many then them these so some her would make like him into time"
    " has look two more write go see number no way could people my than first water been call who"
    " hello world"
)


def _merges(space: str) -> Iterator[tuple[str, str]]:
    """Yields endless pairs of known pieces that join to a new piece.

    Args:
        space: The character that stands for a space in the vocabulary.
    """
    seen: set[str] = set()
    for word in _WORDS.split():
        piece = space
        for char in word:
            left, piece = piece, piece + char
            if piece not in seen:
                seen.add(piece)
                yield left, char
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
    yield from ((syllable[0], syllable[1]) for syllable in syllables)
    for length in count(2):
        for parts in product(syllables, repeat=length):
            yield "".join(parts[:-1]), parts[-1]


def _pieces(n_vocab: int, n_fixed: int, space: str) -> list[tuple[str, str]]:
    """Returns the merges that fill a vocabulary of which n_fixed tokens are already decided."""
    if n_vocab <= n_fixed:  # llama.cpp wants at least one merge
        raise ValueError(f"n_vocab must be above {n_fixed} for this tokenizer, not {n_vocab}")
    return list(islice(_merges(space), n_vocab - n_fixed))


def _add_vocabulary(writer: GGUFWriter, tokens: list[tuple[str, TokenType]]) -> None:
    """Writes the two arrays that every tokenizer has."""
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])


def _han(n: int) -> list[str]:
    """Returns `n` texts of Han characters, pairs first, as SentencePiece numbers them."""
    letters = [chr(0x4E00 + i) for i in range(n // 2 + 1)]
    pairs = map("".join, pairwise(letters))
    return [*pairs, *letters][2 * (n // 2) + 1 - n :]


def add_spm(writer: GGUFWriter, n_vocab: int, n_han: int = 0) -> None:
    """Writes a SentencePiece-style tokenizer that falls back to bytes.

    Args:
        writer: The file to write to.
        n_vocab: The number of tokens.
        n_han: So many of the last ones are of Han characters.

    Raises:
        ValueError: If so few tokens cannot hold the bytes and characters.
    """
    space = "\u2581"
    tokens = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    # Only ASCII: any other character has to take the way through the byte tokens.
    tokens += [(char, TokenType.NORMAL) for char in [space, *map(chr, range(33, 127))]]
    # llama.cpp looks up the last of these when a model's name has "phi3" in it.
    turns = [(text, TokenType.CONTROL) for text in ("<|user|>", "<|end|>", "<|endoftext|>")]
    pieces = _pieces(n_vocab, len(tokens) + len(turns), space)
    n_unscored = len(tokens)
    texts = [left + right for left, right in pieces]
    if n_han:
        texts[-n_han:] = _han(n_han)
    tokens += [(text, TokenType.NORMAL) for text in texts]
    tokens += turns
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    _add_vocabulary(writer, tokens)
    # The best score is merged first; tokens that no merge makes are never compared.
    ranked = [-float(rank) for rank in range(1, len(pieces) + 1)]
    writer.add_token_scores([0.0] * n_unscored + ranked + [0.0] * len(turns))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


def _byte_characters() -> list[str]:
    """Returns the printable character that byte-level BPE shows each byte as."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = count(0x100)
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def add_bpe(writer: GGUFWriter, n_vocab: int, pre: str) -> None:
    """Writes a byte-level BPE tokenizer.

    Args:
        writer: The file to write to.
        n_vocab: The number of tokens.
        pre: The name by which llama.cpp knows how to cut text into words.

    Raises:
        ValueError: If so few tokens cannot hold the bytes.
    """
    characters = _byte_characters()
    tokens = [(char, TokenType.NORMAL) for char in characters]
    # A user-defined token is plain text that is never taken apart, unlike a control token.
    specials = [("<tool_call>", TokenType.USER_DEFINED)]
    controls = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    specials += [(text, TokenType.CONTROL) for text in controls]
    pieces = _pieces(n_vocab, len(tokens) + len(specials), characters[ord(" ")])
    tokens += [(left + right, TokenType.NORMAL) for left, right in pieces]
    tokens += specials
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    _add_vocabulary(writer, tokens)
    writer.add_token_merges([f"{left} {right}" for left, right in pieces])
    writer.add_bos_token_id(n_vocab - 1)
    writer.add_eos_token_id(n_vocab - 1)
