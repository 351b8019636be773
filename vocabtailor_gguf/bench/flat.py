"""A report as JSON or CSV: an object, or a line, for each row."""

from __future__ import annotations

import csv
import io
import json
import statistics
from typing import Any

from vocabtailor_gguf.bench.results import Benchmark, Report, Row
from vocabtailor_gguf.gguf.header import GGUFHeader


def json_rows(report: Report) -> list[dict[str, Any]]:
    """Return an object for each row, which says with ``way`` where it comes from.

    Rows of fresh processes have the keys of ``llama-bench -o json``, ours after them; steady ones
    have the fields of `SteadyRow`. As in llama-bench each carries the header: ``machine``.
    """
    rows = []
    for result in report.models:
        rows += [_of_llama_bench(report, result, row) for row in result.rows]
        ours = {"model": result.core.name, "noise_of_stock": result.noise}
        machine = dict(report.machine)
        rows += [{**dict(row), **ours, "machine": machine} for row in result.steady]
    return rows


def csv_text(report: Report) -> str:
    """Return a line for each row; objects have a column for each field, lists are JSON."""
    rows = [_flattened(row) for row in json_rows(report)]
    names = dict.fromkeys(name for row in rows for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flattened(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flattened({f"{name}_{k}": v for k, v in value.items()})
        else:
            is_list = isinstance(value, list | tuple)
            flat[name] = json.dumps(value) if is_list else value
    return flat


def _of_llama_bench(report: Report, result: Benchmark, row: Row) -> dict[str, Any]:
    path = result.baseline if row.mode.startswith("stock") else result.core
    header = GGUFHeader(path, lenient=True)
    ns = [s["ns"] for s in row.samples]
    return {
        "build_commit": report.machine.build,
        "build_number": 0,
        "cpu_info": report.machine.cpu,
        "gpu_info": "",
        "backends": "CPU",
        "model_filename": str(path),
        "model_type": header.get("general.name", ""),
        "model_size": row.last.get("model_size", 0),
        "n_batch": 512,
        "n_ubatch": 512,
        "n_threads": result.n_threads,
        "type_k": "f16",
        "type_v": "f16",
        "n_gpu_layers": 0,
        "flash_attn": False,
        "n_prompt": row.test.n_prompt,
        "n_gen": row.test.n_gen,
        "n_depth": row.test.n_depth,
        "test_time": report.time,
        "avg_ns": round(statistics.mean(ns)),
        "stddev_ns": round(statistics.stdev(ns)) if len(ns) > 1 else 0,
        "avg_ts": statistics.mean(row.speeds),
        "stddev_ts": statistics.stdev(row.speeds) if len(ns) > 1 else 0.0,
        "samples_ns": ns,
        "samples_ts": row.speeds,
        **_ours(result, row),
        "way": "fresh",
        "machine": dict(report.machine),
    }


def _ours(result: Benchmark, row: Row) -> dict[str, Any]:
    """Return what llama-bench does not have; None where it was not measured."""
    is_start = row.test.part == "start"
    return {
        "vt_test": row.test.name,
        "vt_part": row.test.part,
        "vt_mode": row.mode,
        "vt_sampler": row.test.sampler,
        "vt_head_rows": row.last.get("head_rows", 0),
        "vt_set_rows": row.test.n_rows,
        "vt_ratio_stock": result.x_stock(row),
        "vt_as_stock": result.as_stock(row),
        "vt_same_choices": row.last.get("same_choices"),
        "vt_accepted": row.accepted,
        "vt_agreed": row.agreed,
        "vt_load_ns": row.median("load_ns") if is_start else None,
        "vt_load_ms": row.load_ms if is_start else None,
        "vt_read_bytes": row.median("read") if is_start else None,
        "vt_peak_bytes": row.median("peak"),
        "vt_anon_bytes": row.median("anon"),
        "vt_file_bytes": row.median("file"),
        "vt_maps": row.memory,
        "vt_memory": row.last.get("report"),
        "vt_noise": result.noise,
    }
