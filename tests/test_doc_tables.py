"""Tables of the documentation are what the files of results say."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from speed_figure import speed_figure

from vocabtailor_gguf.bench.steady import SteadyRow
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.evaluation.markdown import brief, markdown
from vocabtailor_gguf.evaluation.metrics.score import Difference
from vocabtailor_gguf.evaluation.summary import (
    Figure,
    GroupSummary,
    VariantSummary,
    groups_of_json,
)

ROOT = Path(__file__).resolve().parents[1]
KINDS = "evaluation, brief, steady, speed or figure"
TOOL = ROOT / "tools" / "doc_tables.py"

FULL = VariantSummary(
    "full", 200, None, (Figure("BLEU", 10.0, None), Figure("chrF", 33.5, None)),
    1.0, 1.0, 0.0, 262144.0, 70.0, 180e6,
)  # fmt: skip
TAILORED = VariantSummary(
    "tailored 0.01", 150, 5489,
    (Figure("BLEU", 9.4, Difference(-0.6, -1.25, 0.1)), Figure("chrF", 33.5, Difference(0, 0, 0))),
    0.605, 0.7, 0.0123, 5912.4, 150.0, 6.3e6,
)  # fmt: skip
GROUPS = [
    GroupSummary("m", "mt_en_it", "translation", "base", 4, 2, "0.3.36", (FULL, TAILORED)),
    GroupSummary("m", "qa", "extraction", "chat", 0, None, "0.3.36", (FULL,)),
]


def steady(sampler: str, mode: str, speed: float, identical: int = 8) -> SteadyRow:
    """A row of 8 prompts, where stock does 50 tokens a second."""
    return SteadyRow(
        "steady", sampler, mode, 8, speed, speed / 50, speed / 60, 100.0, 1.0, identical,
        0, 0, 0, 0, 0.1,
    )  # fmt: skip


STEADY = [
    steady(sampler, mode, speed, identical)
    for sampler in ("greedy", "temp0.8")
    for mode, speed, identical in (
        ("stock", 50, 8), ("exact-no-set", 90, 8), ("tailored", 120, 3), ("exact-active", 75, 8),
    )
]  # fmt: skip


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *args], capture_output=True, text=True, check=False
    )


@pytest.fixture
def rewritten() -> Any:
    spec = importlib.util.spec_from_file_location("doc_tables", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rewritten


def test_the_tables_of_this_project() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rows_of_tables() -> None:
    text = markdown(GROUPS)
    assert "**m, mt_en_it**: 200 rows, base prompts with 4 examples, 2 threads" in text
    assert (
        "| full |  | 10.00 |  | 33.50 |  | 100.0% | 100.0% | 0.00% | 262,144 | 70.0 | 180.0 |"
        in (text)
    )
    assert (
        "| tailored 0.01 (150 rows) | 5,489 | 9.40 | -0.60 [-1.25, +0.10] | 33.50 | "
        "+0.00 [+0.00, +0.00] | 60.5% | 70.0% | 1.23% | 5,912 | 150.0 | 6.3 |"
    ) in text
    assert brief(GROUPS).count("\n") == 4
    for line in (*text.splitlines(), *brief(GROUPS).splitlines()):
        assert not line.startswith("|") or line.endswith("|")


def test_summaries_survive_json() -> None:
    data = json.loads(json.dumps([dataclasses.asdict(group) for group in GROUPS]))
    assert groups_of_json(data) == GROUPS


def test_documents_are_rewritten(tmp_path: Path) -> None:
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    (results / "m.json").write_text(
        json.dumps([dataclasses.asdict(group) for group in GROUPS]), encoding="utf-8"
    )
    (tmp_path / "README.md").write_text("nothing here\n", encoding="utf-8")
    document = tmp_path / "docs" / "paper.md"
    empty = (
        "# Paper\n<!-- table: evaluation m.json qa -->\n<!-- end of table -->\n"
        "then\n<!-- table: brief m.json -->\nold\n<!-- end of table -->\nend\n"
    )
    document.write_text(empty, encoding="utf-8")
    root = ["--root", str(tmp_path)]
    done = run("--check", *root)
    assert done.returncode == 1 and done.stdout.strip() == str(document)
    assert document.read_text(encoding="utf-8") == empty
    assert run(*root).returncode == 0
    text = document.read_text(encoding="utf-8")
    assert markdown(GROUPS[1:]) in text and brief(GROUPS) in text and "old" not in text
    assert run("--check", *root).returncode == 0
    document.write_text(text.replace("10.00", "11.00"), encoding="utf-8")
    assert run("--check", *root).returncode == 1


def test_a_figure_and_its_table(tmp_path: Path) -> None:
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    (results / "a.json").write_text(json.dumps([dict(row) for row in STEADY]), encoding="utf-8")
    readme, picture = tmp_path / "README.md", tmp_path / "docs" / "speed.svg"
    readme.write_text(
        "<!-- table: figure docs/speed.svg a.json -->\n<!-- end of table -->\n"
        "<!-- table: speed a.json -->\n<!-- end of table -->\n",
        encoding="utf-8",
    )
    root = ["--root", str(tmp_path)]
    done = run("--check", *root)
    assert done.returncode == 1 and done.stdout.split() == [str(readme), str(picture)]
    assert not picture.exists()
    assert run(*root).returncode == 0
    text = readme.read_text(encoding="utf-8")
    said = "Bit-identical to stock llama.cpp at these speeds against it: a 1.80 to 1.80 x"
    assert f"![{said}](docs/speed.svg)" in text
    assert "| a | stock | 50 | 1.00 | 50 | 1.00 | 16 of 16 |" in text
    assert "|  | exact, no set | 90 | 1.80 | 90 | 1.80 | 16 of 16 |" in text
    assert "|  | tailored, token set | 120 | 2.40 | 120 | 2.40 | 6 of 16 |" in text
    assert run("--check", *root).returncode == 0
    picture.write_text(picture.read_text(encoding="utf-8").replace("1.80", "1.90"), "utf-8")
    done = run("--check", *root)
    assert done.returncode == 1 and done.stdout.split() == [str(picture)]


def test_what_a_figure_says() -> None:
    drawing = xml.etree.ElementTree.fromstring(speed_figure([("a <b>", STEADY)]))
    written = ["".join(t.itertext()) for t in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <b>, greedy: stock 50 tokens/s" in written and "stock = 1" in written
    assert written.count("bit-identical to stock") == 2
    assert written.count("3 of 8 texts are stock's") == 2
    assert "1.80 x, 90 tokens/s" in written and "1.50 x, 75 tokens/s" not in written
    # one text that differs, and the bar no longer says so
    row = dataclasses.replace(STEADY[1], identical=7)
    assert speed_figure([("a", [STEADY[0], row])]).count("bit-identical to stock") == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<!-- table: evaluation m.json -->\n", "no end"),
        (
            "<!-- table: pace m.json -->\n<!-- end of table -->",
            KINDS,
        ),
        (
            "<!-- table: brief -->\n<!-- end of table -->",
            KINDS,
        ),
        (
            "<!-- table: figure a.svg -->\n<!-- end of table -->",
            KINDS,
        ),
        ("<!-- table: figure a.svg m.json -->\n<!-- end of table -->", "m.json"),
        ("<!-- table: brief none.json -->\n<!-- end of table -->", "none.json"),
        ("<!-- table: brief bad.json -->\n<!-- end of table -->", "bad.json"),
        ("<!-- table: brief m.json other -->\n<!-- end of table -->", "other is not in"),
    ],
)
def test_tables_that_cannot_be_made(rewritten: Any, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bad.json").write_text('[{"x": 1}]', encoding="utf-8")
    (tmp_path / "m.json").write_text(
        json.dumps([dataclasses.asdict(group) for group in GROUPS]), encoding="utf-8"
    )
    with pytest.raises(VocabTailorError, match=told):
        rewritten(text, tmp_path, "x.md")
