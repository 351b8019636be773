"""Token sets that grow from use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.token_set import TokenSet

_KEY = "learned"  # in the provenance: {token: count}


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
        missed: Tokens that it lacked, and how often each was wanted.
        tokenizer: Fingerprint of the tokenizer.
        decay: Factor on earlier counts, 0 to 1.
        least: Learned tokens whose count falls below it are dropped.

    Raises:
        VocabTailorError: Nothing is left, or an argument or the provenance is wrong.
    """
    if not 0 <= decay <= 1 or not least >= 0:
        raise VocabTailorError(f"decay {decay}, least {least}: expected 0 to 1, and 0 or more")
    counts: dict[int, float] = {}
    ids: set[int] = set()
    provenance: dict[str, object] = {}
    if base is not None:
        provenance = dict(base.provenance)
        earlier = provenance.get(_KEY, {})
        try:
            counts = {int(t): decay * float(n) for t, n in dict(earlier).items()}  # type: ignore[call-overload]
        except (TypeError, ValueError) as e:
            raise VocabTailorError(f"token set: {_KEY}: expected counts of tokens") from e
        ids = set(base.ids.tolist()) - set(counts)
    for token, n in missed.items():
        if token not in ids:
            counts[token] = counts.get(token, 0.0) + n
    kept = {t: n for t, n in counts.items() if n >= least}
    if not ids and not kept:
        raise VocabTailorError("nothing was learned, and there is no token set to begin with")
    provenance[_KEY] = {str(t): kept[t] for t in sorted(kept)}
    return TokenSet(np.array(sorted(ids | set(kept)), dtype=np.int32), tokenizer, provenance)
