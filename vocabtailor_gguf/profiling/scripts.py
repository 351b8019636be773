"""Stage 2: tokens whose text is written in chosen scripts.

Scripts come from the Unicode database through the ``regex`` package (property Script, UAX 24).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError

_CLASSES = {
    "digits": r"\p{N}",
    "punctuation": r"\p{P}",
    "spaces": r"[\p{Z}\s]",
    "symbols": r"\p{S}",
    "maths": r"[\p{Sm}\p{Script=Greek}\u2070-\u209F\u2100-\u214F\u2190-\u21FF]",
    "emoji": (
        r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\u200D\uFE0F\u20E3"
        r"\U0001F1E6-\U0001F1FF]"
    ),
}
DEFAULT_CLASSES = ("digits", "punctuation", "spaces", "symbols")


def script_pattern(scripts: Sequence[str], classes: Sequence[str] = DEFAULT_CLASSES) -> Any:
    """Return a compiled pattern that matches text of these scripts and classes only.

    Args:
        scripts: Names of the Unicode property Script, such as ``latin`` or ``han``.
        classes: Of digits, punctuation, spaces, symbols, maths, emoji.

    Raises:
        VocabTailorError: A name is not known.
        UnsupportedError: The package ``regex`` is not installed.
    """
    try:
        import regex
    except ImportError as e:
        raise UnsupportedError(
            "scripts need the package regex: pip install 'vocabtailor_gguf[profile]'"
        ) from e
    parts = []
    for name in scripts:
        part = rf"\p{{Script={name}}}"
        try:
            regex.compile(part)
        except regex.error as e:
            raise VocabTailorError(f"script {name!r}: not in the Unicode database") from e
        parts.append(part)
    for name in classes:
        if name not in _CLASSES:
            raise VocabTailorError(f"class {name!r}: expected one of {', '.join(_CLASSES)}")
        parts.append(_CLASSES[name])
    # marks and joiners take the script of what they stand on
    parts.append(r"\p{Script=Inherited}")
    return regex.compile("(?:" + "|".join(parts) + ")*")


def in_scripts(pieces: Sequence[bytes], pattern: Any) -> npt.NDArray[np.bool_]:
    """Tell which tokens consist of the pattern's characters only.

    A piece of byte-level BPE can begin or end inside a character. Bytes at the begin that finish a
    character say nothing about its script; a character that is cut at the end leaves a range of
    code points, and the piece stays if one of them would do.

    Args:
        pieces: (n,) token texts as bytes.
        pattern: From `script_pattern`.

    Returns:
        (n,) bool.
    """
    found = np.zeros(len(pieces), dtype=np.bool_)
    for i, piece in enumerate(pieces):
        whole, low, high = _cut_character(piece)
        if pattern.fullmatch(whole.decode("utf-8", errors="ignore")) is None:
            continue
        step = max(1, (high - low) // _SAMPLES)
        found[i] = low > high or any(
            pattern.fullmatch(chr(c)) for c in range(low, high + 1, step) if c not in _SURROGATES
        )
    return found


# of the living scripts those that tokenizers have pieces of
_COMMON_SCRIPTS = (
    "latin", "greek", "cyrillic", "armenian", "hebrew", "arabic", "devanagari", "bengali",
    "gurmukhi", "gujarati", "oriya", "tamil", "telugu", "kannada", "malayalam", "sinhala", "thai",
    "lao", "tibetan", "myanmar", "georgian", "hangul", "ethiopic", "khmer", "mongolian",
    "hiragana", "katakana", "han",
)  # fmt: skip
_SEEN_SHARE = 0.01


def in_same_scripts(
    pieces: Sequence[bytes], frequency: npt.NDArray[np.int64], words: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    """Tell which tokens are written in the scripts that a corpus or word lists use.

    A script is in use when at least 1% of all occurrences have a letter of it.

    Args:
        pieces: (n_vocab,) token texts as bytes.
        frequency: (n_vocab,) document frequencies of a corpus.
        words: (n,) ids of word lists.

    Returns:
        (n_vocab,) bool; all True where nothing is known, or ``regex`` is not installed.
    """
    weight = frequency.copy()
    weight[words] += 1
    everything = np.ones(len(pieces), dtype=np.bool_)
    try:
        import regex
    except ImportError:
        return everything
    letters = [regex.compile(rf"\p{{Script={name}}}") for name in _COMMON_SCRIPTS]
    seen = np.zeros(len(letters), dtype=np.int64)
    for token in np.flatnonzero(weight).tolist():
        text = pieces[token].decode("utf-8", errors="ignore")
        seen += weight[token] * np.array([p.search(text) is not None for p in letters])
    used = [
        name for name, n in zip(_COMMON_SCRIPTS, seen, strict=True) if n > _SEEN_SHARE * seen.sum()
    ]
    return in_scripts(pieces, script_pattern(used)) if used else everything


_SAMPLES = 1024  # code points tried of a range
_SURROGATES = range(0xD800, 0xE000)
_NO_RANGE = (0, -1)


def _cut_character(piece: bytes) -> tuple[bytes, int, int]:
    """Return the piece without a character cut at its end, and the code points that may be it."""
    for n in range(1, min(3, len(piece)) + 1):
        lead = piece[-n]
        if lead >= 0xC0:
            size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            if n >= size or lead > 0xF4:
                break
            value = lead & (0xFF >> (size + 1))
            for byte in piece[len(piece) - n + 1 :]:
                value = value << 6 | (byte & 0x3F)
            bits = 6 * (size - n)
            low, high = value << bits, (value << bits) | ((1 << bits) - 1)
            return piece[:-n], max(low, 0x80), min(high, 0x10FFFF)
        if lead < 0x80:
            break
    return piece, *_NO_RANGE
