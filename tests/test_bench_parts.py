"""Parts of the benchmark beside plain text, several models, and what is printed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, browsing

from vocabtailor_gguf.bench import inputs, pages
from vocabtailor_gguf.bench.flat import csv_text, json_rows
from vocabtailor_gguf.bench.machine import read_bandwidth, this_machine
from vocabtailor_gguf.bench.markdown import markdown
from vocabtailor_gguf.bench.page import page
from vocabtailor_gguf.bench.requant import requantize, requantized_modes
from vocabtailor_gguf.bench.results import Report
from vocabtailor_gguf.bench.run import run_benchmark
from vocabtailor_gguf.bench.smaps import COMPONENTS, grouped, memory_by_component
from vocabtailor_gguf.bench.steady import run_steady, steady_of_json
from vocabtailor_gguf.bench.tables import tables_of
from vocabtailor_gguf.bench.workloads import PARTS, Workload, planned, sizes_up_to
from vocabtailor_gguf.binding.types import parse_type
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.sets.token_set import TokenSet
from vocabtailor_gguf.svg import check_can_draw

SMAPS = """\
5594-5595 r-xp 00002000 fe:00 260386                     /usr/bin/python3.11
Size:                  24 kB
Rss:                  20 kB
Anonymous:             4 kB
6000-7000 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
7f00-7f01 r--s 00000000 fe:00 17                         /models/a model.core.gguf
Rss:                 300 kB
7f01-7f02 r--s 00000000 fe:00 18                         /models/a model.vocab.gguf (deleted)
Rss:                   7 kB
7f02-7f03 r--p 00000000 fe:00 19                         /usr/lib/libm.so.6
Rss:                  40 kB
7f03-7f04 rw-p 00000000 00:00 0
Rss:                   8 kB
VmFlags: rd wr mr mw me ac
"""


def test_memory_by_component() -> None:
    files = {"core": "/models/a model.core.gguf", "store": "/models/a model.vocab.gguf"}
    found = {name: n >> 10 for name, n in grouped(SMAPS, files).items()}
    assert found == {
        **{"core": 300, "store": 7, "stock": 0, "anonymous": 108, "libraries": 40, "other": 20}
    }


@pytest.mark.skipif(sys.platform != "linux", reason="has no smaps")
def test_memory_of_this_process() -> None:
    found = memory_by_component({})
    assert found is not None and set(found) == set(COMPONENTS)
    assert found["anonymous"] > 0 and found["libraries"] > 0 and found["core"] == 0


def test_machine() -> None:
    assert read_bandwidth(2, 1 << 20) > 0
    machine = this_machine(1)
    assert machine.cpu and machine.n_threads == 1 and machine.bandwidth > 0
    assert all(flag == flag.lower() for flag in machine.flags)


FACTS = {"n_vocab": 5000, "n_trained": 600}


def names(parts: list[str], modes: list[str], **more: Any) -> list[tuple[str, str]]:
    found = planned(parts, modes, n_prompt=16, n_gen=8, **{**FACTS, **more})
    return [(test.name, mode) for test, mode in found]


def test_sizes_double_up_to_the_vocabulary() -> None:
    assert sizes_up_to(5000) == [1024, 2048, 4096, 5000]
    assert sizes_up_to(517) == [517] and sizes_up_to(2048) == [1024, 2048]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("prompt", ["pp16: stock core exact"]),
        ("text", ["tg8 greedy: stock core exact", "tg8 temp0.8: stock exact"]),
        ("json", ["tg8 json: stock exact"]),
        ("depth", ["tg8 @ d0: stock exact", "tg8 @ d512: stock exact"]),
        ("start", ["start cold: stock exact", "start warm: stock exact"]),
        ("size", ["tg8 greedy: stock"]),
        ("grow", []),
    ],
)
def test_tests_and_modes_of_a_part(part: str, expected: list[str]) -> None:
    found = names([part], ["stock", "core", "exact"])
    wanted = []
    for line in expected:
        test, _, modes = line.partition(": ")
        wanted += [(test, mode) for mode in modes.split()]
    assert found == wanted


def test_a_test_of_two_parts_is_done_once() -> None:
    asked = ["stock", "tailored", "full"]
    found = names(["requant", "size", "text"], asked, requantized=["stock-q4_0"])
    assert len(set(found)) == len(found)
    greedy = [mode for name, mode in found if name == "tg8 greedy"]
    assert greedy == ["stock", "full", "tailored", "stock-q4_0"]
    assert [n for n, _ in found if "ids" in n] == [f"tg8, {n:,} ids" for n in sizes_up_to(5000)]


def test_what_cannot_be_is_left_out() -> None:
    assert names(["start"], ["stock"], can_drop=False) == [("start warm", "stock")]
    grown = names(["grow", "swap"], ["tailored"], n_vocab=300)
    assert [n for n, _ in grown] == [
        "grow by 1 row",
        *(f"grow by {n} rows" for n in (10, 100)),
        "swap 150 rows",
    ]
    assert planned(["text", "prompt"], ["stock"], n_prompt=0, n_gen=0, **FACTS) == []


def test_a_size_is_compared_with_the_text_test() -> None:
    size = Workload(0, 8, "greedy", "size", n_rows=1024)
    assert size.reference == Workload(0, 8, "greedy")
    assert size.n_units == 8 and Workload(0, 0, "greedy", "swap", n_rows=7).n_units == 7


def test_sets_of_sizes_hold_one_another(tiny_split: Callable[[str], Any], tmp_path: Path) -> None:
    store = tiny_split("llama").vocab
    paths = inputs.sized_sets(store, tmp_path, [40, 100, 517])
    small, middle, whole = (TokenSet.load(path).ids for path in paths.values())
    assert [s.size for s in (small, middle, whole)] == [40, 100, 517]
    assert np.isin(small, middle).all() and np.isin(middle, whole).all()
    frequent = TokenSet.load(inputs.default_set(store, tmp_path)).ids
    assert np.isin(small, frequent).all()


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_a_requantized_head_alone_changes(
    name: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    # rows of 64 values do not fill the blocks of q4_K
    assert requantized_modes(tiny(name)) == {"stock-q4_0": "q4_0", "stock-q5_0": "q5_0"}
    target = tmp_path / "q.gguf"
    requantize(tiny(name), target, "q4_0", 1)
    before, after = (GGUFHeader(path, lenient=True) for path in (tiny(name), target))
    changed = [n for n, t in before.tensors.items() if after.tensors[n].type != t.type]
    assert changed == ["output.weight" if name == "llama" else "token_embd.weight"]
    assert after.tensors[changed[0]].type == parse_type("q4_0")
    for key, found in before.keys.items():
        assert after.keys[key].record == found.record


def test_wide_rows_take_q4_k(tiny: Callable[..., Path], tmp_path: Path) -> None:
    wide = tiny("llama-tied", n_embd=256)
    assert requantized_modes(wide) == {"stock-q4_0": "q4_0", "stock-q4_K": "q4_K"}
    requantize(wide, tmp_path / "q.gguf", "q4_K", 1)


def test_a_head_that_cannot_be_requantized(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(VocabTailorError, match=r"head as q4_K: it (was stopped|ended)"):
        requantize(tiny("llama"), tmp_path / "q.gguf", "q4_K", 1)


@pytest.mark.skipif(not pages.CAN_DROP, reason="has no posix_fadvise")
def test_dropped_and_filled_files_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 70_000)
    pages.drop([file])
    pages.fill([file])
    assert file.read_bytes() == b"x" * 70_000


@pytest.fixture(scope="module")
def everything(tiny: Callable[[str], Path], tiny_split: Callable[[str], Any]) -> Report:
    """All parts of a tiny model, both ways."""
    core, stock = tiny_split("llama").core, tiny("llama")
    modes = ("stock", "core", "tailored", "exact")
    asked: dict[str, Any] = {"n_gen": 4, "n_threads": 1, "modes": modes}
    result = run_benchmark(core, stock, n_prompt=8, n_rounds=1, parts=PARTS, **asked)
    steady = run_steady(core, stock, ["the cat", "sat"], **asked)
    return Report(
        this_machine(1), "2026-01-01", (dataclasses.replace(result, steady=tuple(steady)),)
    )


def test_all_parts(everything: Report) -> None:
    rows = json_rows(everything)
    fresh = [r for r in rows if r["way"] == "fresh"]
    steady = [r for r in rows if r["way"] == "steady"]
    assert len(fresh) + len(steady) == len(rows) and steady
    assert steady_of_json(steady) == list(everything.models[0].steady)
    found = {(r["vt_test"], r["vt_mode"]): r for r in fresh}
    assert {r["vt_part"] for r in fresh} == set(PARTS) - {"requant"}  # whose test is the text's
    for r in fresh:
        assert r["avg_ns"] > 0 and r["avg_ts"] > 0 and r["machine"] == rows[0]["machine"]
    assert found["start warm", "stock"]["vt_load_ns"] < found["start warm", "stock"]["avg_ns"]
    parts = {"store", "core", "whole_head", "header", "vocabulary", "forms"}
    assert set(found["start warm", "exact"]["vt_load_ms"]) == parts
    assert found["start warm", "stock"]["vt_load_ms"] == {}
    assert found["tg4 json", "exact"]["vt_as_stock"] == 1.0
    assert found["tg4 @ d0", "exact"]["vt_as_stock"] == 1.0
    assert found["tg4, 517 ids", "tailored"]["vt_head_rows"] == 517
    assert 0 <= found["tg4 greedy", "stock-q4_0"]["vt_same_choices"] <= 1
    assert found["tg4 greedy", "stock-q4_0"]["model_size"] < rows[0]["model_size"]
    assert found["grow by 10 rows", "tailored"]["vt_set_rows"] == 10
    if sys.platform == "linux":
        for mode, name in (("stock", "stock"), ("core", "core"), ("stock-q4_0", "stock")):
            assert found["tg4 greedy", mode]["vt_maps"][name] > 0


def test_csv(everything: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(everything))))
    assert {line["way"] for line in lines} == {"fresh", "steady"}
    assert all(line["machine_cpu"] == lines[0]["machine_cpu"] for line in lines)
    assert json.loads(lines[0]["samples_ns"])[0] > 0


def test_tables_of_all_parts(everything: Report) -> None:
    text = markdown(everything)
    for table in tables_of(everything.models[0]):
        assert f"### {table.title}\n" in text
        assert all(len(row) == len(table.head) for row in table.rows)
    titles = re.findall("^### (.*)$", text, flags=re.MULTILINE)
    assert len(titles) == (9 if sys.platform == "linux" else 8)


def test_page(everything: Report) -> None:
    html = page(everything)
    assert html.startswith("<!DOCTYPE html>") and html.endswith("</html>")
    assert "<script" not in html and not re.search(r'(src|href)="(?!#)', html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(set(ids)) == len(ids)
    assert {*re.findall(r'href="#([^"]+)"', html), *re.findall(r"url\(#([^)]+)\)", html)} <= {*ids}
    captions = re.findall("<figcaption>(.*?)</figcaption>", html)
    assert captions[0] == "Speed against the size of the set" and "Start" in captions
    assert '<td class="name">stock-q4_0</td><td class="name">fresh</td>' in html


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_nothing_of_the_page_is_cut_off(everything: Report, tmp_path: Path) -> None:
    file = tmp_path / "bench.html"
    file.write_text(page(everything), encoding="utf-8")
    with browsing(file.as_uri(), tmp_path / "profile") as shown:
        width = shown.run("document.documentElement.scrollWidth")
        assert width <= shown.run("innerWidth")
        # texts of pictures are outlines; all of them lie inside of their picture
        outside = """[...document.querySelectorAll("figure svg")].filter(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("[id*='text_'], [id*='legend_']")].some(part => {
                const its = part.getBoundingClientRect();
                return its.width && (its.left < box.left - 1 || its.right > box.right + 1
                    || its.top < box.top - 1 || its.bottom > box.bottom + 1);
            });
        }).length"""
        assert shown.run(outside) == 0


@pytest.mark.parametrize(
    ("output", "begin"), [("html", "<!DOCTYPE"), ("csv", "build_commit,"), ("json", "[")]
)
def test_outputs(
    capsys: pytest.CaptureFixture[str],
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    output: str,
    begin: str,
) -> None:
    asked = ["-p", "4", "-n", "0", "-r", "1", "-t", "1", "--modes", "stock", "-o", output]
    pair = ["-m", str(tiny_split("llama").core), "--baseline", str(tiny("llama"))]
    assert main(["bench", *pair, *asked]) == 0
    assert capsys.readouterr().out.startswith(begin)


def test_several_models(
    capsys: pytest.CaptureFixture[str],
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    cores = []
    for name in ("llama", "llama-tied"):
        (tmp_path / f"{name}.gguf").symlink_to(tiny(name))
        for file in (tiny_split(name).core, tiny_split(name).vocab):
            (tmp_path / file.name).symlink_to(file)
        cores.append(str(tmp_path / tiny_split(name).core.name))
    asked = ["-p", "4", "-n", "0", "-r", "1", "-t", "1", "--modes", "stock"]
    assert main(["bench", "-m", *cores, *asked]) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("## ")] == [
        "## llama.core.gguf against llama.gguf",
        "## llama-tied.core.gguf against llama-tied.gguf",
    ]
    assert "llama-tied.core.gguf: round 1 of 1: pp4, stock" in err


def test_wrong_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "-m", "a.core.gguf", "b.core.gguf", "--baseline", "a.gguf"]) == 1
    assert "--baseline: found 1, expected 2, one for each core" in capsys.readouterr().err
    assert main(["bench", "-m", str(tmp_path / "a.core.gguf")]) == 1
    assert "no unsplit model NAME.gguf beside it" in capsys.readouterr().err


def test_the_last_model_is_checked_before_the_first_is_measured(
    capsys: pytest.CaptureFixture[str],
    tiny: Callable[[str], Path],
    tiny_split: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    cores = [str(tiny_split(name).core) for name in ("llama", "qwen2")]
    stock = [str(tiny(name)) for name in ("llama", "qwen2")]
    sets = [str(tmp_path / f"{i}.tokens.json") for i in range(2)]
    for path in sets:
        TokenSet([1, 500]).save(path)  # more than the second vocabulary has
    for wrong, told in (
        (["--baseline", stock[0], str(tmp_path / "none.gguf")], "none.gguf"),
        (["--baseline", *stock, "--token-set", *sets], "id 500, expected 0 to 447"),
        (["--baseline", *stock, "--prompts", __file__, "-n", "1"], "-n: found 1, expected 2"),
    ):
        assert main(["bench", "-m", *cores, *wrong]) == 1
        err = capsys.readouterr().err
        assert told in err and "round" not in err


def test_a_page_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UnsupportedError, match=r"vocabtailor_gguf\[report\]"):
        check_can_draw("a page")
    assert main(["bench", "-m", "a.core.gguf", "--baseline", "a.gguf", "-o", "html"]) == 1
    assert "a page needs the package matplotlib" in capsys.readouterr().err
