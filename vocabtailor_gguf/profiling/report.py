"""What a profile is worth: ids after each stage, coverage and cost of sets of several sizes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.profiling.cost import Cost, measure_costs
from vocabtailor_gguf.profiling.coverage import Coverage, With
from vocabtailor_gguf.profiling.profile import RECIPES, NoTokenLeftError, Profile

_SHARES = (0.02, 0.05, 0.5, 1.0)  # sizes that are shown beside those of tolerances and recipes
_N_MISSED = 30


@dataclasses.dataclass(frozen=True)
class Size:
    """A set of one size.

    Attributes:
        name: What gives this size, such as "tolerance 0.01" or "recipe balanced".
        rows: Ids of the set.
        vocab_share: Rows with the always-on ones as a share of the vocabulary.
        held_out: Share of held-out output tokens that are active, by what is active: the set, the
            prompt's tokens too, their other forms too. Empty without held-out texts.
        own: The same of the model's own outputs.
        own_whole: Share of the model's own outputs that miss no token, or None.
        cost: Memory and time of the head.
    """

    name: str
    rows: int
    vocab_share: float
    held_out: dict[With, float]
    own: dict[With, float]
    own_whole: float | None
    cost: Cost


@dataclasses.dataclass(frozen=True)
class Missed:
    """A token that the set of a size lacks: its text, how often, and from which size it is in."""

    id: int
    text: str
    count: int
    rows_needed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """All that the report shows.

    Attributes:
        model: Name of the store's file.
        data: Files of the corpus.
        evaluated: Files of held-out texts.
        n_vocab: Tokens of the vocabulary.
        n_always_on: Tokens that are active in any case.
        stages: Ids after each stage, at each tolerance.
        sizes: Sets by size.
        held_out: Coverage of held-out outputs, or None.
        own: Coverage of the model's own outputs, or None.
        missed: Tokens that the set named `missed_at` lacks most often.
        missed_at: Name of a size.
        n_threads: Threads of the head.
    """

    model: str
    data: tuple[str, ...]
    evaluated: tuple[str, ...]
    n_vocab: int
    n_always_on: int
    stages: dict[str, dict[str, int]]
    sizes: tuple[Size, ...]
    held_out: Coverage | None
    own: Coverage | None
    missed: tuple[Missed, ...]
    missed_at: str
    n_threads: int

    def least(self, share: float) -> Size | None:
        """Return the smallest size whose coverage is at least `share`.

        The model's own outputs count where they were measured, else the held-out ones.
        """
        for size in self.sizes:
            if (size.own or size.held_out).get("expanded", 0.0) >= share:
                return size
        return None


def build_report(
    found: Profile,
    store: VocabStore,
    pieces: Sequence[bytes],
    *,
    tolerances: Sequence[float],
    held_out: Coverage | None,
    own: Coverage | None,
    evaluated: Sequence[str] = (),
    n_threads: int,
) -> Report:
    """Measure sets of several sizes.

    Args:
        found: The corpus that was counted.
        store: The vocabulary.
        pieces: (n_vocab,) token texts.
        tolerances: Tolerances to show.
        held_out: Coverage of held-out outputs.
        own: Coverage of the model's own outputs.
        evaluated: Names of the held-out files.
        n_threads: Threads of the head.
    """
    on = found.always_on
    stages: dict[str, dict[str, int]] = {}
    named: dict[str, int] = {}
    for tolerance in tolerances:
        # a tolerance may drop all that a small corpus has, and prompts may bring all of it
        with contextlib.suppress(NoTokenLeftError):
            counted = found.at_tolerance(tolerance).provenance["stages"]
            stages[f"{tolerance:g}"] = dict(counted)
            named[f"tolerance {tolerance:g}"] = counted["tolerance"]
    for name, recipe in RECIPES.items():
        if recipe.share is not None:
            named[f"recipe {name}"] = int(recipe.share * store.n_vocab) - on.size
    for share in _SHARES:
        named[f"{share:.0%} of the vocabulary"] = int(share * store.n_vocab) - on.size
    by_rows = sorted((item for item in named.items() if item[1] >= 0), key=lambda item: item[1])
    active = [np.concatenate([on, found.ranking[:rows]]) for _, rows in by_rows]
    sizes = [
        Size(
            name=name,
            rows=rows,
            vocab_share=cost.rows / store.n_vocab,
            held_out=_shares(held_out, rows),
            own=_shares(own, rows),
            own_whole=None if own is None else own.whole(rows),
            cost=cost,
        )
        for (name, rows), cost in zip(by_rows, measure_costs(store, active, n_threads), strict=True)
    ]
    missed: tuple[Missed, ...] = ()
    missed_at = ""
    coverage = own or held_out
    if coverage is not None:
        at = next((s for s in sizes if s.name == "recipe balanced"), sizes[0])
        missed_at = at.name
        missed = tuple(_missed(found, pieces, coverage, at.rows))
    return Report(
        model=store.path.name,
        data=tuple(str(d) for d in found.data),
        evaluated=tuple(evaluated),
        n_vocab=store.n_vocab,
        n_always_on=int(on.size),
        stages=stages,
        sizes=tuple(sizes),
        held_out=held_out,
        own=own,
        missed=missed,
        missed_at=missed_at,
        n_threads=n_threads,
    )


def _shares(coverage: Coverage | None, rows: int) -> dict[With, float]:
    return {} if coverage is None else {w: coverage.share(rows, w) for w in coverage.ranks}


def _missed(found: Profile, pieces: Sequence[bytes], coverage: Coverage, rows: int) -> list[Missed]:
    place = np.argsort(found.ranking)  # of a token among those outside always_on, ascending
    order = np.sort(found.ranking)
    return [
        Missed(
            id=token,
            text=pieces[token].decode("utf-8", errors="backslashreplace"),
            count=n,
            rows_needed=int(place[np.searchsorted(order, token)]) + 1,
        )
        for token, n in coverage.missed(rows, _N_MISSED)
    ]
