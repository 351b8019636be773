"""Measure a split model against the model it came from, in fresh processes, taking turns.

Machines drift, so each round measures every mode once, and speeds are compared within the round.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.child import run_child
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.pair import sibling_store
from vocabtailor_gguf.profiling.frequent import documentation_texts, frequent_token_set
from vocabtailor_gguf.runtime.drafts import Drafts
from vocabtailor_gguf.runtime.tokenizer import load_tokenizer

MODES = ("stock", "core", "full", "tailored", "exact", "exact-no-set", "exact-active")
DEFAULT_MODES = MODES[:-1]
_CHILD = "vocabtailor_gguf.bench.child"  # the module that runs in a process of its own
_N_DEFAULT_ROWS = 8000
_N_TEXT = 400  # most tokens of the text tests' prompt


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is timed: a prompt of n_prompt tokens, or n_gen tokens of text."""

    n_prompt: int
    n_gen: int
    sampler: str

    @property
    def name(self) -> str:
        """Name as llama-bench has it, and the sampler."""
        if self.n_prompt:
            return f"pp{self.n_prompt}"
        return f"tg{self.n_gen} {self.sampler}"


@dataclasses.dataclass(frozen=True)
class Row:
    """All samples of one mode in one test.

    Attributes:
        test: The test.
        mode: One of `MODES`: core is the core with no head at all; exact has the token set, as
            tailored has, exact-no-set has none, exact-active has it and drafts nothing from the
            text.
        samples: What the child processes printed, round by round.
    """

    test: Workload
    mode: str
    samples: tuple[dict[str, Any], ...]

    @property
    def speeds(self) -> list[float]:
        """Tokens per second, round by round."""
        n = self.test.n_prompt or self.test.n_gen
        return [n * 1e9 / s["ns"] for s in self.samples]

    def ratio(self, other: Row) -> float:
        """Return the median over rounds of this row's speed over that of `other`."""
        pairs = zip(self.speeds, other.speeds, strict=True)
        return statistics.median(a / b for a, b in pairs)

    def median(self, what: str) -> float:
        """Return the median of a figure of the samples."""
        return float(statistics.median(s[what] for s in self.samples))


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The result: every row, and what was measured."""

    core: Path
    baseline: Path
    n_threads: int
    head_rows: int
    rows: tuple[Row, ...]

    def row(self, test: Workload, mode: str) -> Row | None:
        """Return the row of a test and a mode."""
        return next((r for r in self.rows if r.test == test and r.mode == mode), None)


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
        drafts: What exact and exact-no-set draft.
        progress: Called with a line before each measurement.

    Raises:
        VocabTailorError: A measurement failed; the text carries its log.
    """
    store_path = Path(vocab or sibling_store(core))
    GGUFHeader(baseline, lenient=True)  # a wrong file is named before anything is measured
    threads = n_threads or os.cpu_count() or 1
    tests = [Workload(n_prompt, 0, "greedy")] if n_prompt else []
    if n_gen:
        tests += [Workload(0, n_gen, "greedy"), Workload(0, n_gen, "temp0.8")]
    with tempfile.TemporaryDirectory(prefix="vocabtailor-bench-") as folder:
        set_path = str(token_set or _default_set(store_path, Path(folder)))
        job = {
            "vocab": str(store_path),
            "token_set": set_path,
            "tokens": _prompt_tokens(store_path, [t for t, _ in documentation_texts()], n_prompt),
            "text_tokens": _prompt_tokens(store_path, [text or _first_topic()], _N_TEXT),
            "n_threads": threads,
            "drafts": drafts,
        }
        samples: dict[tuple[Workload, str], list[dict[str, Any]]] = {}
        for i in range(n_rounds):
            for test in tests:
                for mode in modes:
                    if mode == "core" and test.sampler != "greedy":
                        continue
                    if progress is not None:
                        progress(f"round {i + 1} of {n_rounds}: {test.name}, {mode}")
                    model = str(baseline if mode == "stock" else core)
                    asked = {**job, **dataclasses.asdict(test), "mode": mode, "model": model}
                    samples.setdefault((test, mode), []).append(_measure(asked, Path(folder)))
    rows = tuple(Row(test, mode, tuple(s)) for (test, mode), s in samples.items())
    head_rows = max(
        (s.get("head_rows", 0) for r in rows if r.mode == "tailored" for s in r.samples), default=0
    )
    return Benchmark(Path(core), Path(baseline), threads, head_rows, rows)


def _default_set(store_path: Path, folder: Path) -> Path:
    path = folder / "frequent.tokens.json"
    with VocabStore(store_path) as store:
        chosen = frequent_token_set(
            store, documentation_texts(), _N_DEFAULT_ROWS, source="Python's help topics and sources"
        )
    chosen.save(path)
    return path


def _first_topic() -> str:
    return next(iter(documentation_texts()))[0][:_N_TEXT]


def _prompt_tokens(store_path: Path, texts: Sequence[str], n: int) -> list[int]:
    tokenizer = load_tokenizer(store_path)
    tokens: list[int] = []
    for text in texts:
        tokens += tokenizer.tokenize(text.encode("utf-8"), add_bos=not tokens)
        if len(tokens) >= n:
            break
    tokenizer.close()
    return tokens[:n]


def _measure(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    ended = run_child(_CHILD, path)
    if ended.result is None:
        raise VocabTailorError(
            f"{job['model']}: bench, {job['mode']}: {ended.sentence}"
            '; "vocabtailor doctor" tells more'
        )
    return ended.result


def markdown(result: Benchmark) -> str:
    """Return the result as Markdown tables."""
    lines = [
        f"{result.core.name} against {result.baseline.name}, {result.n_threads} threads, "
        f"{result.head_rows:,} head rows in tailored mode",
        "",
        "| test | mode | tokens/s | x stock | x core alone | peak MB | anon MB | file MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result.rows:
        spread = statistics.stdev(row.speeds) if len(row.speeds) > 1 else 0.0
        core_test = dataclasses.replace(row.test, sampler="greedy")
        ratios = [
            _ratio(row, result.row(row.test, "stock")),
            _ratio(row, result.row(core_test, "core")),
        ]
        memory = [f"{row.median(what) / 1e6:.0f}" for what in ("peak", "anon", "file")]
        speed = f"{statistics.mean(row.speeds):.1f} ± {spread:.1f}"
        lines.append("| " + " | ".join([row.test.name, row.mode, speed, *ratios, *memory]) + " |")
    return "\n".join([*lines, "", *_vocabulary_memory(result)])


def _ratio(row: Row, other: Row | None) -> str:
    return "" if other is None else f"{row.ratio(other):.2f}"


def _vocabulary_memory(result: Benchmark) -> list[str]:
    """Resident embedding, head and logits against the bytes stock keeps for them."""
    header = GGUFHeader(result.baseline, lenient=True)
    names = ("token_embd.weight", "output.weight", "output.bias")
    tables = sum(t.n_bytes for t in header.tensors.values() if t.name in names)
    n_vocab = header.tensors[names[0]].ne[1]
    stock = tables + 4 * n_vocab
    lines = [
        "Memory of its own, without mapped pages:",
        "",
        "| mode | embedding MB | head MB | whole head MB | logits MB | of stock's tables, logits |",
        "|---|---:|---:|---:|---:|---:|",
        f"| stock | {tables / 1e6:.1f} | | | {4 * n_vocab / 1e6:.1f} | 100% |",
    ]
    for mode in MODES[2:]:
        row = next((r for r in result.rows if r.mode == mode and r.test.n_gen), None)
        if row is not None:
            report = row.samples[-1]["report"]
            parts = [report[k] for k in ("embedding", "head", "whole_head", "logits")]
            shown = " | ".join(f"{p / 1e6:.1f}" for p in parts)
            lines.append(f"| {mode} | {shown} | {sum(parts) / stock:.1%} |")
    return lines


def llama_bench_json(result: Benchmark) -> list[dict[str, Any]]:
    """Return one object per row with the keys of ``llama-bench -o json``, ours after them."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    build = native.ffi.string(native.lib().vt_build_info()).decode()
    out = []
    for row in result.rows:
        path = result.baseline if row.mode == "stock" else result.core
        header = GGUFHeader(path, lenient=True)
        ns = [s["ns"] for s in row.samples]
        stock = result.row(row.test, "stock")
        out.append(
            {
                "build_commit": build,
                "build_number": 0,
                "cpu_info": _cpu_name(),
                "gpu_info": "",
                "backends": "CPU",
                "model_filename": str(path),
                "model_type": header.get("general.name", ""),
                "model_size": sum(t.n_bytes for t in header.tensors.values()),
                "n_batch": 512,
                "n_ubatch": 512,
                "n_threads": result.n_threads,
                "type_k": "f16",
                "type_v": "f16",
                "n_gpu_layers": 0,
                "flash_attn": False,
                "n_prompt": row.test.n_prompt,
                "n_gen": row.test.n_gen,
                "n_depth": 0,
                "test_time": now,
                "avg_ns": round(statistics.mean(ns)),
                "stddev_ns": round(statistics.stdev(ns)) if len(ns) > 1 else 0,
                "avg_ts": statistics.mean(row.speeds),
                "stddev_ts": statistics.stdev(row.speeds) if len(ns) > 1 else 0.0,
                "samples_ns": ns,
                "samples_ts": row.speeds,
                "vt_mode": row.mode,
                "vt_sampler": row.test.sampler,
                "vt_head_rows": row.samples[-1].get("head_rows", 0),
                "vt_ratio_stock": None if stock is None else row.ratio(stock),
                "vt_peak_bytes": row.median("peak"),
                "vt_anon_bytes": row.median("anon"),
                "vt_file_bytes": row.median("file"),
                "vt_memory": row.samples[-1].get("report"),
            }
        )
    return out


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(
            line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line
        )
    except (OSError, StopIteration):
        return platform.processor()
