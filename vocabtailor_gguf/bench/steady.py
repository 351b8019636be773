"""Measure modes against stock in one process, taking turns at each prompt of a file.

A fresh process per measurement warms up anew, and machines drift in between; here all models are
loaded once, and each ratio is of two generations that followed one another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf.bench.loading import SAMPLERS, load
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.pair import sibling_store
from vocabtailor_gguf.record import Record
from vocabtailor_gguf.runtime.drafts import Drafts

STEADY_MODES = ("stock", "full", "tailored", "exact", "exact-no-set", "exact-active")


@dataclasses.dataclass(frozen=True)
class Turn:
    """One generation.

    Attributes:
        tokens: That were generated.
        first_ns: To the first of them, with the prompt.
        ns: After it.
    """

    tokens: tuple[int, ...]
    first_ns: int
    ns: int

    @property
    def speed(self) -> float:
        """Tokens per second after the first one."""
        return (len(self.tokens) - 1) * 1e9 / self.ns


@dataclasses.dataclass(frozen=True)
class SteadyRow(Record):
    """A mode with a sampler, over all prompts.

    Attributes:
        way: ``"steady"``.
        sampler: Of `SAMPLERS`.
        mode: Of `STEADY_MODES`.
        prompts: Number of prompts.
        tokens_per_second: Median over prompts, after the first token.
        x_stock: Median over prompts of the speed against stock's at the same prompt.
        x_stock_low: The lowest of them.
        first_ms: Median time to the first token, of prompts that share nothing.
        first_x_stock: Median of stock's time to the first token over this one.
        identical: Prompts whose tokens are all stock's.
        drafted: Tokens drafted.
        rejected: Of them those that were not the whole vocabulary's choice.
        ahead: Tokens that passes of the core took before they were chosen.
        agreed: Of them those that then were.
        noise: Of stock: the middle half of its speeds, as a share of their median.
    """

    way: str
    sampler: str
    mode: str
    prompts: int
    tokens_per_second: float
    x_stock: float
    x_stock_low: float
    first_ms: float
    first_x_stock: float
    identical: int
    drafted: int
    rejected: int
    ahead: int
    agreed: int
    noise: float


def read_prompts(path: str | os.PathLike[str], text: str) -> list[str]:
    """Return the prompts of a file: the field ``prompt`` of JSON lines, else its paragraphs.

    Args:
        path: Its name, which tells the kind by ``.jsonl``.
        text: What it holds.

    Raises:
        BadFileError: A line has no such field, or there is no prompt.
    """
    if Path(path).suffix == ".jsonl":
        prompts = []
        for n, line in enumerate(text.splitlines(), 1):
            if line.strip():
                prompts.append(_prompt_of(line, f"{path}: line {n}"))
    else:
        prompts = [part.strip() for part in text.split("\n\n") if part.strip()]
    if not prompts:
        raise BadFileError(f"{path}: no prompts")
    return prompts


def _prompt_of(line: str, where: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError) as e:
        raise BadFileError(f"{where}: expected an object with a field prompt") from e
    if not isinstance(prompt, str) or not prompt:
        raise BadFileError(f"{where}: prompt: expected a text that is not empty")
    return prompt


def run_steady(
    core: str | os.PathLike[str],
    baseline: str | os.PathLike[str],
    prompts: Sequence[str],
    *,
    vocab: str | os.PathLike[str] | None = None,
    token_set: str | os.PathLike[str] | None = None,
    n_gen: int = 96,
    n_ctx: int = 2048,
    n_threads: int | None = None,
    modes: Sequence[str] = STEADY_MODES,
    drafts: Drafts = "auto",
    progress: Callable[[str], None] | None = None,
) -> list[SteadyRow]:
    """Measure.

    Args:
        core: ``NAME.core.gguf``.
        baseline: The unsplit model.
        prompts: Texts; the first one is also done once more before, unmeasured.
        vocab: ``NAME.vocab.gguf``; by default the one beside the core.
        token_set: Path of a set for `tailored`, `exact` and `exact-active`; modes that want one are
            left out without it.
        n_gen: Tokens of a generation, 2 or more; one that ends earlier is shorter.
        n_ctx: Of each model.
        n_threads: Threads, by default all.
        modes: Which of `STEADY_MODES`; stock is always there.
        drafts: What exact and exact-no-set draft.
        progress: Called with a line before each prompt.

    Raises:
        VocabTailorError: A prompt does not fit, or a file is malformed.
    """
    if n_gen < 2:
        raise VocabTailorError(f"n_gen: found {n_gen}, expected 2 or more")
    GGUFHeader(baseline, lenient=True)
    job = {
        "vocab": str(vocab or sibling_store(core)),
        "token_set": None if token_set is None else str(token_set),
        "n_threads": n_threads or os.cpu_count() or 1,
        "drafts": drafts,
    }
    wanted = [m for m in STEADY_MODES if m == "stock" or m in modes]
    if token_set is None:
        wanted = [m for m in wanted if m not in ("tailored", "exact", "exact-active")]
    turns: dict[tuple[str, str], list[Turn]] = {}
    with contextlib.ExitStack() as stack:
        models = {}
        for mode in wanted:
            model = str(baseline if mode == "stock" else core)
            models[mode] = load({**job, "mode": mode, "model": model}, n_ctx)
            stack.callback(models[mode].close)
        before = {}
        for i, prompt in enumerate([prompts[0], *prompts]):
            if i == 1:
                before = {mode: _drafting(llm) for mode, llm in models.items()}
            if progress is not None:
                progress(f"prompt {i} of {len(prompts)}" if i else "warm-up")
            for sampler, mode in _in_turn(wanted, i):
                turn = _generate(models[mode], prompt, n_gen, sampler)
                if i:
                    turns.setdefault((sampler, mode), []).append(turn)
        counted = {
            mode: [b - a for a, b in zip(before[mode], _drafting(llm), strict=True)]
            for mode, llm in models.items()
        }
    return [
        _row(sampler, mode, turns[sampler, mode], turns[sampler, "stock"], counted[mode])
        for sampler in SAMPLERS
        for mode in wanted
    ]


def _in_turn(modes: Sequence[str], i: int) -> Iterator[tuple[str, str]]:
    """Yield samplers and modes; each prompt begins with another mode."""
    for sampler in SAMPLERS:
        for j in range(len(modes)):
            yield sampler, modes[(i + j) % len(modes)]


def _drafting(llm: Any) -> list[int]:
    stats = getattr(llm, "stats", None)
    if stats is None:
        return [0, 0, 0, 0]
    return [stats.drafted, stats.rejected, stats.ahead, stats.agreed]


def _generate(llm: llama_cpp.Llama, prompt: str, n_gen: int, sampler: str) -> Turn:
    ids = llm.tokenize(prompt.encode("utf-8"))
    if len(ids) + n_gen > llm.n_ctx():
        raise VocabTailorError(
            f"a prompt of {len(ids)} tokens and {n_gen} more: expected no more than {llm.n_ctx()}"
        )
    llm.reset()
    llm.set_seed(1)
    end = llm.token_eos()
    tokens: list[int] = []
    begin = first = time.perf_counter_ns()
    with contextlib.closing(llm.generate(ids, **SAMPLERS[sampler])) as stream:
        for token in stream:
            tokens.append(token)
            if len(tokens) == 1:
                first = time.perf_counter_ns()
            if len(tokens) == n_gen or (token == end and len(tokens) > 1):
                break
    return Turn(tuple(tokens), first - begin, max(time.perf_counter_ns() - first, 1))


def _row(
    sampler: str, mode: str, turns: Sequence[Turn], stock: Sequence[Turn], counted: Sequence[int]
) -> SteadyRow:
    pairs = list(zip(turns, stock, strict=True))
    ratios = [a.speed / b.speed for a, b in pairs]
    speeds = [a.speed for a in turns]
    middle = statistics.quantiles(speeds, n=4) if len(speeds) > 1 else [speeds[0]] * 3
    return SteadyRow(
        way="steady",
        sampler=sampler,
        mode=mode,
        prompts=len(turns),
        tokens_per_second=statistics.median(speeds),
        x_stock=statistics.median(ratios),
        x_stock_low=min(ratios),
        first_ms=statistics.median(a.first_ns for a in turns) / 1e6,
        first_x_stock=statistics.median(b.first_ns / a.first_ns for a, b in pairs),
        identical=sum(a.tokens == b.tokens for a, b in pairs),
        drafted=counted[0],
        rejected=counted[1],
        ahead=counted[2],
        agreed=counted[3],
        noise=(middle[2] - middle[0]) / middle[1],
    )


def steady_of_json(data: Any) -> list[SteadyRow]:
    """Return rows from what ``vocabtailor bench --prompts FILE -o json`` prints.

    Raises:
        TypeError: It is something else.
    """
    names = {field.name for field in dataclasses.fields(SteadyRow)}
    return [SteadyRow(**{k: v for k, v in row.items() if k in names}) for row in data]
