"""What is measured: parts, and of each the tests and the modes they are done in."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

MODES = ("stock", "core", "full", "tailored", "exact", "exact-no-set", "exact-active")
DEFAULT_MODES = MODES[:-1]
PARTS = ("text", "prompt", "start", "json", "grow", "swap", "size", "depth", "requant")
DEFAULT_PARTS = ("prompt", "text")
DEPTHS = (0, 512, 1024, 2048)  # tokens
GROWTHS = (1, 10, 100, 500, 2000)  # rows
_LEAST_SIZE = 1024  # rows
_SWAPPED = 16_000  # rows
_JSON_MODES = ("stock", "exact", "tailored")
_DEPTH_MODES = ("stock", "tailored", "exact")


@dataclasses.dataclass(frozen=True)
class Workload:
    """One test.

    Attributes:
        n_prompt: Tokens of the prompt test, else 0.
        n_gen: Tokens that are generated and timed.
        sampler: Of `loading.SAMPLERS`.
        part: Of `PARTS`.
        n_depth: Of part depth, the tokens before.
        n_rows: Of part size, the ids of the token set; of grow and swap, the rows.
        is_cold: Of part start, whether the files were dropped from the page cache before.
    """

    n_prompt: int
    n_gen: int
    sampler: str
    part: str = "text"
    n_depth: int = 0
    n_rows: int = 0
    is_cold: bool = False

    @property
    def name(self) -> str:
        """Name, where llama-bench has such a test as it has it."""
        names = {
            "prompt": f"pp{self.n_prompt}",
            "text": f"tg{self.n_gen} {self.sampler}",
            "json": f"tg{self.n_gen} json",
            "depth": f"tg{self.n_gen} @ d{self.n_depth}",
            "size": f"tg{self.n_gen}, {self.n_rows:,} ids",
            "start": f"start {'cold' if self.is_cold else 'warm'}",
            "grow": f"grow by {self.n_rows:,} row{'s' * (self.n_rows != 1)}",
            "swap": f"swap {self.n_rows:,} rows",
        }
        return names[self.part]

    @property
    def n_units(self) -> int:
        """What speeds count: tokens, of grow and swap rows."""
        return self.n_prompt or self.n_gen or self.n_rows

    @property
    def reference(self) -> Workload:
        """The test whose stock is the yardstick: itself, of sizes the text test."""
        return dataclasses.replace(self, part="text", n_rows=0) if self.part == "size" else self

    def options(self) -> dict[str, int | str | bool]:
        """Return the fields, for a child."""
        return dataclasses.asdict(self)


def planned(
    parts: Collection[str],
    modes: Sequence[str],
    *,
    n_prompt: int,
    n_gen: int,
    n_vocab: int,
    n_trained: int,
    requantized: Sequence[str] = (),
    can_drop: bool = True,
) -> list[tuple[Workload, str]]:
    """Return tests with their modes, in the order in which a round does them, none twice.

    Args:
        parts: Of `PARTS`.
        modes: Of `MODES`; parts that compare certain ones take those of them that are here.
        n_prompt: Tokens of the prompt test, 0 for none.
        n_gen: Tokens of the text tests, 0 for none.
        n_vocab: Tokens of the vocabulary.
        n_trained: Length of text that the model was trained for; deeper tests are left out.
        requantized: Modes of part requant.
        can_drop: Whether files can be dropped from the page cache.
    """
    found: dict[tuple[Workload, str], None] = {}
    for test, wanted in _tests(
        parts,
        n_prompt=n_prompt,
        n_gen=n_gen,
        n_vocab=n_vocab,
        n_trained=n_trained,
        requantized=requantized,
        can_drop=can_drop,
    ):
        for mode in wanted:
            if mode in modes or mode in requantized:
                found[test, mode] = None
    # a test that two parts ask for is done with the modes of both in turn
    order = {test: i for i, test in enumerate(dict.fromkeys(test for test, _ in found))}
    return sorted(found, key=lambda pair: order[pair[0]])


def _tests(
    parts: Collection[str],
    *,
    n_prompt: int,
    n_gen: int,
    n_vocab: int,
    n_trained: int,
    requantized: Sequence[str],
    can_drop: bool,
) -> Iterator[tuple[Workload, Sequence[str]]]:
    greedy = Workload(0, n_gen, "greedy")
    of_tokens = [mode for mode in MODES if mode != "core"]
    if "prompt" in parts and n_prompt:
        yield Workload(n_prompt, 0, "greedy", "prompt"), MODES
    if n_gen:
        if "text" in parts:
            yield greedy, MODES
        if "size" in parts:
            yield greedy, ["stock"]
        if "requant" in parts:
            yield greedy, ["stock", *requantized]
        if "text" in parts:
            yield Workload(0, n_gen, "temp0.8"), of_tokens
        if "size" in parts:
            for n_rows in sizes_up_to(n_vocab):
                yield Workload(0, n_gen, "greedy", "size", n_rows=n_rows), ["tailored"]
        if "json" in parts:
            yield Workload(0, n_gen, "greedy", "json"), _JSON_MODES
        if "depth" in parts:
            for n in DEPTHS:
                if n == 0 or n + n_gen <= n_trained:
                    yield Workload(0, n_gen, "greedy", "depth", n_depth=n), _DEPTH_MODES
    if "start" in parts:
        for is_cold in (True, False) if can_drop else (False,):
            yield Workload(0, 1, "greedy", "start", is_cold=is_cold), of_tokens
    if "grow" in parts:
        for n_rows in GROWTHS:
            if n_rows <= n_vocab // 2:
                yield Workload(0, 0, "greedy", "grow", n_rows=n_rows), ["tailored"]
    if "swap" in parts:
        yield Workload(0, 0, "greedy", "swap", n_rows=min(_SWAPPED, n_vocab // 2)), ["tailored"]


def sizes_up_to(n_vocab: int) -> list[int]:
    """Return 1,024, 2,048, 4,096 and so on, and at the end the whole vocabulary.

    Example:
        >>> sizes_up_to(5000)
        [1024, 2048, 4096, 5000]
    """
    sizes = []
    n = _LEAST_SIZE
    while n < n_vocab:
        sizes.append(n)
        n *= 2
    return [*sizes, n_vocab]
