"""The tables of a result, whatever they are printed as."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from vocabtailor_gguf.bench.results import Benchmark, Report, Row
from vocabtailor_gguf.bench.smaps import COMPONENTS
from vocabtailor_gguf.bench.steady import SteadyRow
from vocabtailor_gguf.bench.workloads import MODES
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.gguf.keys import BIAS, EMBEDDING, HEAD

OF_COMPONENTS = {
    "core": "core file", "store": "store file", "stock": "stock file", "anonymous": "anonymous",
    "libraries": "libraries", "other": "other files",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as texts.

    Attributes:
        title: Of the table.
        note: What a reader must know, empty for nothing.
        head: Names of the columns.
        rows: Cells, as many a row as there are columns.
        n_names: First columns that are names; the others are figures.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_names: int = 2


def machine_lines(report: Report) -> list[str]:
    """Return the header: sentences about the machine."""
    machine, n = report.machine, report.machine.n_threads
    lines = [
        f"{machine.cpu}, {machine.system}; ggml uses {' '.join(machine.flags) or 'no extensions'}.",
        f"Memory is read at {machine.bandwidth:.1f} GB/s or more, {n} thread{'s' * (n > 1)}.",
    ]
    noise = [f"{100 * b.noise:.1f}% ({b.baseline.name})" for b in report.models if b.noise]
    if noise:
        told = ", ".join(noise)
        lines.append(f"Noise: the middle half of repeated runs of stock spans {told} of the speed.")
    lines.append(f"llama-cpp-python {machine.llama_cpp}, {report.time}.")
    return lines


def title_of(result: Benchmark) -> str:
    """Return the heading of a model."""
    return f"{result.core.name} against {result.baseline.name}"


def model_line(result: Benchmark) -> str:
    """Return a sentence about how a model was measured; empty where there is nothing to say."""
    if not result.head_rows:
        return ""
    return f"{result.head_rows:,} head rows in tailored mode."


def tables_of(result: Benchmark) -> list[Table]:
    """Return the tables of a model, without those that would be empty."""
    made = [
        _speeds(result),
        _sizes(result),
        _requantized(result),
        _starts(result),
        _changes(result),
        _components(result),
        _vocabulary_memory(result),
        _drafts(result),
        steady_table(result.steady),
    ]
    return [table for table in made if table.rows]


def _speeds(result: Benchmark) -> Table:
    rows = []
    for row in result.of("prompt", "text", "json", "depth"):
        core_test = dataclasses.replace(row.test, sampler="greedy")
        core = result.row(core_test, "core")
        memory = [f"{row.median(what) / 1e6:.0f}" for what in ("peak", "anon", "file")]
        ratios = [_ratio(result.x_stock(row)), _ratio(row.ratio(core) if core else None)]
        ratios.append(_share(result.as_stock(row)))
        rows.append((row.test.name, row.mode, "fresh", _speed(row), *ratios, *memory))
    head = ("test", "mode", "way", "tokens/s", "x stock", "x core alone", "as stock")
    return Table(
        "Speed",
        "As stock: the share of a greedy text that is stock's, up to the first other token.",
        (*head, "peak MB", "anon MB", "file MB"),
        tuple(rows),
        3,
    )


def _sizes(result: Benchmark) -> Table:
    rows = []
    for row in result.of("size"):
        head = row.last["report"]["head"] / 1e6
        cells = [f"{row.test.n_rows:,}", row.mode, "fresh", f"{row.last['head_rows']:,}"]
        cells += [f"{head:.1f}", _speed(row), _ratio(result.x_stock(row))]
        rows.append(tuple(cells))
    return Table(
        "Size of the set",
        "Head rows are those of the set, always-on tokens and the prompt's.",
        ("ids", "mode", "way", "head rows", "head MB", "tokens/s", "x stock"),
        tuple(rows),
        3,
    )


def _requantized(result: Benchmark) -> Table:
    rows = []
    for row in result.of("text"):
        if not row.mode.startswith("stock-"):
            continue
        stock = result.row(row.test, "stock")
        cells = [row.mode, "fresh", f"{row.last['model_size'] / 1e6:.0f}", _speed(row)]
        cells += [_ratio(row.ratio(stock) if stock else None), _share(result.as_stock(row))]
        rows.append((*cells, _share(row.last.get("same_choices"))))
    return Table(
        "A head of another type instead",
        "Stock, its LM head requantised (a tied head with the embedding). Same choices: at how "
        "many tokens of stock's greedy text it would choose the same one.",
        ("mode", "way", "tensors MB", "tokens/s", "x stock", "as stock", "same choices"),
        tuple(rows),
    )


def _starts(result: Benchmark) -> Table:
    rows = []
    for row in result.of("start"):
        times = [f"{row.median(what) / 1e6:.0f}" for what in ("load_ns", "ns")]
        read = f"{row.median('read') / 1e6:.0f}"
        parts = ", ".join(f"{name.replace('_', ' ')} {ms:.0f}" for name, ms in row.load_ms.items())
        cells = (row.test.name, row.mode, "fresh", *times, _ratio(result.x_stock(row)), read)
        rows.append((*cells, parts))
    return Table(
        "Start",
        "Cold: the model's files were dropped from the page cache before. The first token comes "
        "with the load and the prompt. Read is what came from the disk: pages that another process "
        "maps cannot be dropped. Parts are loaded side by side, so they add up to more.",
        ("test", "mode", "way", "load ms", "first token ms", "x stock", "read MB", "parts, ms"),
        tuple(rows),
        3,
    )


def _changes(result: Benchmark) -> Table:
    rows = []
    for row in result.of("grow", "swap"):
        times = [s["ns"] / 1e6 for s in row.samples]
        middle = statistics.median(times)
        shown = f"{middle:.3f} ({min(times):.3f} to {max(times):.3f})"
        a_row = f"{1e3 * middle / row.test.n_units:.2f}"
        rows.append((row.test.name, row.mode, "fresh", shown, a_row))
    return Table(
        "Changes of the active set",
        "In a session that has a text; random rows, the median of five times in each process.",
        ("test", "mode", "way", "ms", "us a row"),
        tuple(rows),
        3,
    )


def shown_memory(result: Benchmark) -> list[tuple[Row, dict[str, float]]]:
    """Return a row of each mode with its memory by component: of one test, the first that tells."""
    found: dict[str, tuple[Row, dict[str, float]]] = {}
    for part in ("text", "json", "depth", "start", "prompt"):
        for row in result.of(part):
            if row.memory is not None:
                found.setdefault(row.mode, (row, row.memory))
    return list(found.values())


def _components(result: Benchmark) -> Table:
    rows = []
    for row, memory in shown_memory(result):
        parts = [f"{memory[name] / 1e6:.1f}" for name in COMPONENTS]
        rows.append((row.mode, row.test.name, "fresh", *parts, f"{sum(memory.values()) / 1e6:.1f}"))
    return Table(
        "Resident memory by component, MB",
        "From smaps at the end of the test. Pages of a file are shared by all processes that map "
        "it, and can be dropped.",
        ("mode", "test", "way", *(OF_COMPONENTS[name] for name in COMPONENTS), "all"),
        tuple(rows),
        3,
    )


def _vocabulary_memory(result: Benchmark) -> Table:
    """Resident embedding, head and logits against the bytes stock keeps for them."""
    header = GGUFHeader(result.baseline, lenient=True)
    tables = sum(t.n_bytes for t in header.tensors.values() if t.name in (EMBEDDING, HEAD, BIAS))
    n_vocab = header.tensors[EMBEDDING].ne[1]
    stock = tables + 4 * n_vocab
    rows: list[tuple[str, ...]] = []
    first = ("stock", "fresh", f"{tables / 1e6:.1f}", "", "", f"{4 * n_vocab / 1e6:.1f}", "100%")
    for mode in MODES[2:]:
        row = next((r for r in result.of("text") if r.mode == mode), None)
        if row is not None:
            parts = [row.last["report"][k] for k in ("embedding", "head", "whole_head", "logits")]
            shown = [f"{p / 1e6:.1f}" for p in parts]
            rows.append((mode, "fresh", *shown, f"{sum(parts) / stock:.1%}"))
    return Table(
        "Memory of the vocabulary's own, MB",
        "Without mapped pages. The last column is the share of stock's tables and logits.",
        ("mode", "way", "embedding", "head", "whole head", "logits", "of stock's"),
        (first, *rows) if rows else (),
    )


def _drafts(result: Benchmark) -> Table:
    rows = []
    for row in result.of("text", "json", "depth"):
        if row.accepted is None:
            continue
        drafted = sum(s["drafted"] for s in row.samples)
        ahead = sum(s["ahead"] for s in row.samples)
        cells = [row.test.name, row.mode, "fresh", f"{drafted:,}", _share(row.accepted)]
        rows.append((*cells, f"{ahead:,}", _share(row.agreed)))
    return Table(
        "Drafts",
        "Accepted: drafts that were the whole vocabulary's choice. Ahead: tokens that passes took "
        "along because they had followed the same words before, or a grammar left nothing else; "
        "agreed: those that then were chosen.",
        ("test", "mode", "way", "drafted", "accepted", "ahead", "agreed"),
        tuple(rows),
        3,
    )


def steady_table(steady: Sequence[SteadyRow], *, with_way: bool = True) -> Table:
    """Return the table of a steady measurement.

    Args:
        steady: Its rows.
        with_way: Say in each row that it is one.
    """
    rows = []
    for r in steady:
        names = [r.sampler, r.mode, *([r.way] if with_way else [])]
        cells = [f"{r.tokens_per_second:.1f}", f"{r.x_stock:.2f}", f"{r.x_stock_low:.2f}"]
        cells += [f"{r.first_ms:.0f}", f"{r.first_x_stock:.2f}"]
        rows.append((*names, *cells, f"{r.identical} of {r.prompts}"))
    names = ["sampler", "mode", *(["way"] if with_way else [])]
    figures = ("tokens/s", "x stock", "lowest", "to the first token, ms", "x stock")
    return Table(
        "In turn, in one process",
        "All models are loaded once and take turns at each prompt; medians over prompts.",
        (*names, *figures, "the same tokens"),
        tuple(rows),
        len(names),
    )


def _speed(row: Row) -> str:
    mean = f"{statistics.mean(row.speeds):.1f}"
    return mean if len(row.speeds) == 1 else f"{mean} ± {statistics.stdev(row.speeds):.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
