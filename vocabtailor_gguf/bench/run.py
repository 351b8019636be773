"""Measure a split model against the model it came from, in fresh processes, taking turns.

Machines drift, so each round measures every mode once, and speeds are compared within the round.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vocabtailor_gguf.bench import inputs, pages
from vocabtailor_gguf.bench.jobs import Jobs
from vocabtailor_gguf.bench.requant import requantize, requantized_modes
from vocabtailor_gguf.bench.results import Benchmark, Row
from vocabtailor_gguf.bench.workloads import DEFAULT_MODES, DEFAULT_PARTS, Workload, planned
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.pair import read_pair, sibling_store
from vocabtailor_gguf.runtime.drafts import Drafts

_N_TEXT = 400  # most tokens of the text tests' prompt

Progress = Callable[[str], None]
Samples = dict[tuple[Workload, str], list[dict[str, Any]]]


def run_benchmark(
    core: str | os.PathLike[str],
    baseline: str | os.PathLike[str],
    *,
    vocab: str | os.PathLike[str] | None = None,
    token_set: str | os.PathLike[str] | None = None,
    text: str | None = None,
    n_prompt: int = 512,
    n_gen: int = 128,
    n_rounds: int = 5,
    n_threads: int | None = None,
    modes: Sequence[str] = DEFAULT_MODES,
    parts: Sequence[str] = DEFAULT_PARTS,
    drafts: Drafts = "auto",
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Measure.

    Args:
        core: ``NAME.core.gguf``.
        baseline: The unsplit model.
        vocab: ``NAME.vocab.gguf``; by default the one beside the core.
        token_set: Path of a token set; by default the 8,000 most frequent tokens of the help
            topics that come with Python.
        text: Prompt of the text tests; by default the begin of these help topics.
        n_prompt: Tokens of the prompt test, 0 for none.
        n_gen: Tokens of the text tests, 0 for none.
        n_rounds: Rounds; each measures every mode once.
        n_threads: Threads, by default all.
        modes: Which of `MODES` to measure; stock is the yardstick.
        parts: Which of `PARTS` to measure.
        drafts: What exact and exact-no-set draft.
        progress: Called with a line before each measurement.

    Raises:
        VocabTailorError: A measurement failed; the text carries its log.
    """
    store_path = Path(vocab or sibling_store(core))
    GGUFHeader(baseline, lenient=True)  # a wrong file is named before anything is measured
    threads = n_threads or os.cpu_count() or 1
    heads = requantized_modes(baseline) if "requant" in parts else {}
    tests = planned(
        parts,
        modes,
        n_prompt=n_prompt,
        n_gen=n_gen,
        requantized=list(heads),
        can_drop=pages.CAN_DROP,
        **_facts(core, store_path),
    )
    said = progress or (lambda line: None)
    with tempfile.TemporaryDirectory(prefix="vocabtailor-bench-") as name:
        folder = Path(name)
        stock = {"stock": str(baseline)}
        for mode, kind in heads.items():
            said(f"{mode}: the head becomes {kind}")
            stock[mode] = str(folder / f"{mode}.gguf")
            requantize(baseline, stock[mode], kind, threads)
        jobs = Jobs(
            folder=folder,
            core=str(core),
            stock=stock,
            common={
                "vocab": str(store_path),
                "token_set": str(token_set or inputs.default_set(store_path, folder)),
                "n_threads": threads,
                "drafts": drafts,
            },
            tokens=inputs.documentation_tokens(
                store_path, max([n_prompt, *(test.n_depth for test, _ in tests)])
            ),
            text_tokens=inputs.prompt_tokens(
                store_path, [text or inputs.first_topic(_N_TEXT)], _N_TEXT
            ),
            sets=inputs.sized_sets(
                store_path, folder, [test.n_rows for test, _ in tests if test.part == "size"]
            ),
        )
        samples = _measured(jobs, tests, n_rounds, said)
    rows = tuple(Row(test, mode, tuple(s)) for (test, mode), s in samples.items())
    of_text = (r for r in rows if r.mode == "tailored" and r.test.part in ("text", "prompt"))
    head_rows = max((s["head_rows"] for r in of_text for s in r.samples), default=0)
    return Benchmark(Path(core), Path(baseline), threads, head_rows, rows)


def _measured(
    jobs: Jobs, tests: Sequence[tuple[Workload, str]], n_rounds: int, progress: Progress
) -> Samples:
    samples: Samples = {}
    started = set()
    for i in range(n_rounds):
        for test, mode in tests:
            progress(f"round {i + 1} of {n_rounds}: {test.name}, {mode}")
            if test.part == "start" and mode not in started:
                jobs.measure(test, mode)  # the first load of all keeps in the cache what it tried
                started.add(mode)
            wanted = None
            if mode in jobs.stock and mode != "stock" and (test, "stock") in samples:
                wanted = samples[test, "stock"][-1].get("tokens")
            sample = jobs.measure(test, mode, wanted=wanted)
            samples.setdefault((test, mode), []).append(sample)
    return samples


def _facts(core: str | os.PathLike[str], store: str | os.PathLike[str]) -> dict[str, int]:
    """Return tokens of the vocabulary, and of the longest text that the model was trained for."""
    header, vocab = read_pair(core, store)
    arch = header.require("general.architecture", str)
    return {
        "n_vocab": vocab.require("vocabtailor.n_vocab", int),
        "n_trained": int(header.get(f"{arch}.context_length", 0)),
    }
