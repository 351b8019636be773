"""The benchmark's arithmetic and a whole small run. Nothing here asserts a speed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf.bench import bench
from vocabtailor_gguf.bench.bench import DEFAULT_MODES, Benchmark, Row, Workload, markdown
from vocabtailor_gguf.cli import main

TEXT = Workload(0, 100, "greedy")


def row(mode: str, *ns: int) -> Row:
    figures = {"peak": 3e6, "anon": 1e6, "file": 2e6}
    return Row(TEXT, mode, tuple({"ns": n, **figures} for n in ns))


def test_ratios_are_medians_over_rounds() -> None:
    stock = row("stock", 2 * 10**9, 4 * 10**9, 2 * 10**9)
    ours = row("tailored", 10**9, 2 * 10**9, 2 * 10**9)
    assert stock.speeds == [50.0, 25.0, 50.0]
    assert ours.ratio(stock) == 2.0  # the round in which the machine was slow for both agrees
    assert ours.median("peak") == 3e6


def test_table(tiny: Callable[[str], Path], tiny_split: Callable[[str], Any]) -> None:
    rows = (row("stock", 2 * 10**9), row("core", 10**9))
    text = markdown(Benchmark(tiny_split("llama").core, tiny("llama"), 2, 0, rows))
    assert "| tg100 greedy | stock | 50.0 ± 0.0 | 1.00 | 0.50 | 3 | 1 | 2 |" in text
    assert "| tg100 greedy | core | 100.0 ± 0.0 | 2.00 | 1.00 | 3 | 1 | 2 |" in text


def test_a_small_run(
    capsys: pytest.CaptureFixture[str],
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
) -> None:
    asked = ["bench", "-m", tiny_split("llama").core, "--baseline", tiny("llama")]
    asked += ["-p", 16, "-n", 8, "-r", 2, "-t", 2, "-o", "json"]
    assert main([str(a) for a in asked]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    keys = {(r["n_prompt"], r["n_gen"], r["vt_mode"], r["vt_sampler"]) for r in found}
    text = {(0, 8, mode, "greedy") for mode in DEFAULT_MODES}
    sampled = {(0, 8, mode, "temp0.8") for mode in DEFAULT_MODES if mode != "core"}
    prompt = {(16, 0, mode, "greedy") for mode in DEFAULT_MODES}
    assert keys == text | sampled | prompt
    for r in found:
        assert len(r["samples_ns"]) == 2
        assert r["avg_ts"] > 0 and r["vt_peak_bytes"] > 0
    rows = {r["vt_mode"]: r["vt_head_rows"] for r in found}
    assert rows["full"] == 517
    assert 256 < rows["tailored"] <= 517
    assert "round 2 of 2" in out.err


def test_a_failing_measurement_says_why(
    capsys: pytest.CaptureFixture[str], tiny_split: Callable[[str], Any], tmp_path: Path
) -> None:
    asked = ["bench", "-m", str(tiny_split("llama").core), "-p", "0", "-n", "4", "-r", "1"]
    assert main([*asked, "--baseline", str(tmp_path / "none.gguf")]) == 1
    assert "none.gguf" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="has no signals")
def test_a_crash_names_model_and_mode(
    capsys: pytest.CaptureFixture[str],
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "crashing_bench.py").write_text("import os, signal; os.kill(os.getpid(), 11)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bench, "_CHILD", "crashing_bench")
    asked = ["bench", "-m", str(tiny_split("llama").core), "-p", "0", "-n", "4", "-r", "1"]
    assert main([*asked, "--baseline", str(tiny("llama"))]) == 1
    expected = f"vocabtailor: error: {tiny('llama')}: bench, stock: it was stopped by SIGSEGV "
    assert capsys.readouterr().err.splitlines()[-1].startswith(expected)


def test_sizes_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["-p", "513"], ["-p=-1"], ["-n=-1"]):
        assert main(["bench", "-m", "x.core.gguf", "--baseline", "x.gguf", *wrong]) == 1
        assert "expected 0 to 512" in capsys.readouterr().err
