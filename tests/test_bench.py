"""The benchmark's arithmetic and a whole small run. Nothing here asserts a speed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf.bench import jobs
from vocabtailor_gguf.bench.machine import Machine
from vocabtailor_gguf.bench.markdown import markdown
from vocabtailor_gguf.bench.results import Benchmark, Report, Row
from vocabtailor_gguf.bench.steady import read_prompts
from vocabtailor_gguf.bench.workloads import DEFAULT_MODES, Workload
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.sets.token_set import TokenSet

TEXT = Workload(0, 100, "greedy")
MACHINE = Machine("A CPU", ("avx2", "fma"), "Linux x86_64", 2, 12.34, "llama.cpp 1", "0.3")


def row(mode: str, *ns: int, **more: Any) -> Row:
    figures = {"peak": 3e6, "anon": 1e6, "file": 2e6, "maps": None, **more}
    return Row(TEXT, mode, tuple({"ns": n, **figures} for n in ns))


def test_ratios_are_medians_over_rounds() -> None:
    stock = row("stock", 2 * 10**9, 4 * 10**9, 2 * 10**9)
    ours = row("tailored", 10**9, 2 * 10**9, 2 * 10**9)
    assert stock.speeds == [50.0, 25.0, 50.0]
    assert ours.ratio(stock) == 2.0  # the round in which the machine was slow for both agrees
    assert ours.median("peak") == 3e6


def test_fewer_tokens_than_asked_count_as_what_they_are() -> None:
    assert row("stock", 10**9, n=30).speeds == [30.0]


def test_as_stock_is_the_begin_that_is_the_same() -> None:
    stock = row("stock", 1, tokens=[1, 2, 3, 4])
    other = row("tailored", 1, tokens=[1, 2, 9, 4])
    result = Benchmark(Path("a.core.gguf"), Path("a.gguf"), 1, 0, (stock, other))
    assert result.as_stock(stock) == 1.0 and result.as_stock(other) == 0.5
    assert result.as_stock(row("core", 1)) is None


def test_noise_is_the_middle_half_of_stock() -> None:
    def noise(*rows: Row) -> float | None:
        return Benchmark(Path("a.core.gguf"), Path("a.gguf"), 1, 0, rows).noise

    assert noise(row("stock", 10**9)) is None
    assert noise(row("tailored", 10**9, 2 * 10**9)) is None
    assert noise(row("stock", 10**9, 10**9, 10**9)) == 0.0
    assert noise(row("stock", *(round(1e11 / speed) for speed in (90, 100, 110)))) == pytest.approx(
        0.1
    )


def test_shares_of_drafts() -> None:
    exact = row("exact", 1, 1, drafted=10, rejected=2, ahead=4, agreed=3)
    assert exact.accepted == 0.8 and exact.agreed == 0.75
    none = row("exact", 1, drafted=0, rejected=0, ahead=0, agreed=0)
    assert none.accepted is None and none.agreed is None
    assert row("stock", 1).accepted is None


@pytest.mark.parametrize(
    ("rounds", "stock", "core"),
    [(1, "50.0", "100.0"), (2, "50.0 ± 0.0", "75.0 ± 35.4")],  # one has no spread
)
def test_table(
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    rounds: int,
    stock: str,
    core: str,
) -> None:
    rows = (row("stock", *[2 * 10**9] * rounds), row("core", *[10**9, 2 * 10**9][:rounds]))
    result = Benchmark(tiny_split("llama").core, tiny("llama"), 2, 0, rows)
    text = markdown(Report(MACHINE, "2026-01-01T00:00:00Z", (result,)))
    assert "- A CPU, Linux x86_64; ggml uses avx2 fma." in text
    assert "- Memory is read at 12.3 GB/s or more, 2 threads." in text
    of_core, of_stock = ("0.50", "2.00") if rounds == 1 else ("0.75", "1.50")
    first, second = (line for line in text.splitlines() if line.startswith("| tg100 greedy |"))
    assert first == f"| tg100 greedy | stock | fresh | {stock} | 1.00 | {of_core} | | 3 | 1 | 2 |"
    assert second == f"| tg100 greedy | core | fresh | {core} | {of_stock} | 1.00 | | 3 | 1 | 2 |"


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
        assert len(r["samples_ns"]) == 2 and r["way"] == "fresh"
        assert r["avg_ts"] > 0 and r["vt_peak_bytes"] > 0
        assert r["machine"]["bandwidth"] > 0 and r["machine"]["n_threads"] == 2
        assert r["vt_as_stock"] in ((None,) if "pp" in r["vt_test"] else (None, 1.0))
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
    monkeypatch.setattr(jobs, "_CHILD", "crashing_bench")
    asked = ["bench", "-m", str(tiny_split("llama").core), "-p", "0", "-n", "4", "-r", "1"]
    assert main([*asked, "--baseline", str(tiny("llama"))]) == 1
    expected = f"vocabtailor: error: {tiny('llama')}: bench, stock: it was stopped by SIGSEGV "
    assert capsys.readouterr().err.splitlines()[-1].startswith(expected)


def test_sizes_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["-p", "513"], ["-p=-1"], ["-n=-1"]):
        assert main(["bench", "-m", "x.core.gguf", "--baseline", "x.gguf", *wrong]) == 1
        assert "expected 0 to 512" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_modes_in_turn(
    capsys: pytest.CaptureFixture[str],
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
    kind: str,
) -> None:
    texts = ["the cat sat", "a second prompt\nof two lines", "more"]
    file = tmp_path / f"prompts.{kind}"
    lines = "\n".join(json.dumps({"prompt": t}) for t in texts)
    file.write_text(lines if kind == "jsonl" else "\n\n".join(texts), encoding="utf-8")
    asked = ["bench", "-m", tiny_split("llama").core, "--baseline", tiny("llama")]
    asked += ["--prompts", file, "-n", 12, "-t", 1]
    assert main([str(a) for a in [*asked, "-o", "json"]]) == 0
    found = json.loads(capsys.readouterr().out)
    modes = ["stock", "full", "exact-no-set"]  # the others want a set
    assert [(r["sampler"], r["mode"]) for r in found] == [
        (sampler, mode) for sampler in ("greedy", "temp0.8") for mode in modes
    ]
    for row in found:
        assert row["way"] == "steady" and row["prompts"] == row["identical"] == 3
        assert row["tokens_per_second"] > 0 and row["first_ms"] > 0
    assert all(row["x_stock"] == row["x_stock_low"] == 1.0 for row in found[::3])
    assert found[2]["drafted"] > 0 and found[0]["drafted"] == 0
    chosen = tmp_path / "s.tokens.json"
    TokenSet(range(300, 320)).save(chosen)
    asked += ["--token-set", chosen, "--modes", "tailored", "exact-active"]
    assert main([str(a) for a in asked]) == 0
    out = capsys.readouterr().out
    assert "| greedy | stock |" in out and "| temp0.8 | tailored |" in out
    (exact,) = (line for line in out.splitlines() if "| greedy | exact-active |" in line)
    assert exact.endswith("| 3 of 3 |")


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}', "line 2: expected an object with a field"),
        ("p.jsonl", '{"prompt": ""}', "line 1: prompt: expected a text"),
        ("p.jsonl", "[1]", "line 1: expected an object"),
        ("p.txt", "\n\n", "no prompts"),
    ],
)
def test_wrong_prompts(name: str, text: str, wrong: str) -> None:
    with pytest.raises(BadFileError, match=wrong):
        read_prompts(name, text)
