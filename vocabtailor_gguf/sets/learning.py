"""Token sets that grow from use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.sets.token_set import TokenSet

KEY = "learned"  # in the provenance: {token: count}


def learned_counts(token_set: TokenSet | None) -> dict[int, float]:
    """Return the tokens that a set has learned, and their counts.

    Raises:
        VocabTailorError: The provenance is wrong.
    """
    counts = {} if token_set is None else token_set.provenance.get(KEY, {})
    try:
        return {int(t): float(n) for t, n in dict(counts).items()}
    except (TypeError, ValueError, OverflowError) as e:
        raise VocabTailorError(f"token set: {KEY}: expected counts of tokens") from e


def learned(
    base: TokenSet | None,
    missed: Mapping[int, int],
    tokenizer: str,
    *,
    decay: float = 1.0,
    least: float = 0.5,
) -> TokenSet:
    """Return a set with the tokens that it lacked, and their counts.

    Args:
        base: The set that was used; counts of what it learned before go on.
        missed: Tokens that it lacked, or had learned, and how often each was wanted since.
        tokenizer: Fingerprint of the tokenizer.
        decay: Factor on earlier counts, 0 to 1.
        least: Learned tokens whose count falls below it are dropped.

    Raises:
        VocabTailorError: Nothing is left, or an argument or the provenance is wrong.
    """
    if not 0 <= decay <= 1 or not least >= 0:
        raise VocabTailorError(f"decay {decay}, least {least}: expected 0 to 1, and 0 or more")
    counts = {token: decay * n for token, n in learned_counts(base).items()}
    ids = set() if base is None else set(base.ids.tolist()) - set(counts)
    provenance = {} if base is None else dict(base.provenance)
    for token, n in missed.items():
        if token not in ids:
            counts[token] = counts.get(token, 0.0) + n
    kept = {t: n for t, n in counts.items() if n >= least}
    if not ids and not kept:
        raise VocabTailorError("nothing was learned, and there is no token set to begin with")
    provenance[KEY] = {str(t): kept[t] for t in sorted(kept)}
    return TokenSet(np.array(sorted(ids | set(kept)), dtype=np.int32), tokenizer, provenance)
