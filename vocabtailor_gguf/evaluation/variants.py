"""What is compared: modes with their token sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, cast

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.profiling.profile import RECIPES

Way = Literal["full", "exact", "tailored", "pruned"]
WAYS: tuple[Way, ...] = ("full", "exact", "tailored", "pruned")
FULL: Way = "full"  # the yardstick


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to run a model.

    Attributes:
        way: A mode, or ``"pruned"``: the vocabulary is cut to the set for good, in the embedding
            and in the LM head, so that other tokens of the prompt become the unknown token.
        of: The set: a tolerance, a number of rows, a recipe, a file, or "none".
    """

    way: Way
    of: str = "none"

    @property
    def name(self) -> str:
        """How it is called in reports."""
        of = Path(self.of).name.removesuffix(".tokens.json") if is_file(self.of) else self.of
        return self.way if self.of == "none" and self.way != "tailored" else f"{self.way} {of}"

    @property
    def is_profiled(self) -> bool:
        """Whether its set comes from the training rows."""
        return self.of != "none" and not is_file(self.of)


def is_file(of: str) -> bool:
    """Whether a set is that of a file."""
    return of.endswith(".json")


def tolerance(of: str) -> float | None:
    """Return the tolerance that a set is asked for by, None for other sets."""
    try:
        return float(of) if "." in of or of == "0" else None
    except ValueError:
        return None


def rows(of: str) -> int | None:
    """Return the number of rows that a set is asked for by, None for other sets."""
    return int(of) if of.isascii() and of.isdigit() and int(of) > 0 else None


def parse_variants(modes: Sequence[str], sets: Sequence[str]) -> list[Variant]:
    """Return what to compare, the full vocabulary first.

    Args:
        modes: `WAYS`, each with a set after a colon or without; tailored and pruned without one
            get each of `sets`.
        sets: Tolerances, numbers of rows, recipes, files, "none".

    Raises:
        VocabTailorError: There is no such mode or set.
    """
    found = [Variant(FULL)]
    for mode in modes:
        way, _, of = mode.partition(":")
        if way not in WAYS:
            raise VocabTailorError(f"mode {way!r}: expected one of {', '.join(WAYS)}")
        asked: Iterable[str] = [of] if of else ["none"]
        if not of and way in ("tailored", "pruned"):
            # where there are others too, "none" is meant for tailored mode
            asked = [one for one in sets if way == "tailored" or one != "none"] or ["none"]
        found += [_variant(way, one) for one in asked]
    return list(dict.fromkeys(found))


def _variant(way: str, of: str) -> Variant:
    share = tolerance(of)
    known = of == "none" or is_file(of) or of in RECIPES or rows(of)
    if not known and (share is None or not 0 <= share <= 1):
        raise VocabTailorError(
            f"set {of!r}: expected a tolerance such as 0.01, a number of rows, "
            f"{', '.join(RECIPES)}, a .json file, or none"
        )
    if way == FULL and of != "none":
        raise VocabTailorError(f"mode full:{of}: it takes no set")
    if way == "pruned" and of == "none":
        raise VocabTailorError("mode pruned: it needs a set")
    return Variant(cast(Way, way), of)
