"""Evaluations from end to end on tiny models: answers, resuming, reports, the command."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinydata import ROWS, write_jsonl

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabTailorError
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.evaluation.evaluate import DataSet, Options, evaluate
from vocabtailor_gguf.evaluation.generate import Answerer, Loaded, Loading, Question, cut
from vocabtailor_gguf.evaluation.results import Read, ResultsFile, Run, read_results
from vocabtailor_gguf.evaluation.summary import summarise
from vocabtailor_gguf.evaluation.tasks import load_task
from vocabtailor_gguf.evaluation.variants import parse_variants

TASK = load_task("translation").limited(shots=1, max_tokens=8)
OPTIONS = Options(n_ctx=256, n_threads=1)
VARIANTS = parse_variants(["exact", "tailored", "pruned"], ["0.0", "none"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "mt.train.jsonl", ROWS[4:])
    return write_jsonl(tmp_path / "mt.test.jsonl", ROWS[:4])


@pytest.fixture
def asked(data: Path) -> DataSet:
    return DataSet(TASK, str(data), str(data.with_name("mt.train.jsonl")))


def computed(core: Path, asked: DataSet, path: Path, options: Options = OPTIONS) -> list[str]:
    """Evaluate, and return a line for each answer that was computed."""
    told: list[str] = []
    with ResultsFile(path) as results:
        evaluate(
            [(str(core), None)], [asked], VARIANTS, results, options,
            lambda what, done, total: told.append(f"{what} {done}/{total}"),
        )  # fmt: skip
    return told


def test_answers_of_the_modes(tiny_split: Any, asked: DataSet, tmp_path: Path) -> None:
    core = tiny_split("llama").core
    told = computed(core, asked, tmp_path / "r.jsonl")
    assert told[0].endswith("mt.test.jsonl, full 1/4")
    read = read_results([tmp_path / "r.jsonl"])
    assert [run.variant for run in read.runs.values()] == [v.name for v in VARIANTS]
    rows = {run.variant: list(read.of(run.key).values()) for run in read.runs.values()}
    assert all([row.row for row in found] == [0, 1, 2, 3] for found in rows.values())
    for row, exact in zip(rows["full"], rows["exact"], strict=True):
        assert row.tokens == exact.tokens and row.text == exact.text
        assert row.n_outside == 0 and row.n_full == len(row.tokens)
    with contextlib.closing(
        TailoredLlama(core, mode="full", n_ctx=256, n_threads=1, verbose=False)
    ) as llm:
        shot = "".join(f"Source: {r['source']}\nTarget: {r['target']}\n\n" for r in ROWS[6:7])
        text = f"{shot}Source: {ROWS[0]['source']}\nTarget:"
        prompt = llm.tokenize(text.encode())
        assert rows["full"][0].n_prompt == len(prompt)
        tokens = tuple(itertools.islice(llm.generate(prompt, temp=0.0), 8))
        assert tokens[: len(rows["full"][0].tokens)] == rows["full"][0].tokens
        active = len(llm.active_ids)
    assert rows["full"][0].head_rows == active
    for name in ("tailored 0.0", "tailored none", "pruned 0.0"):
        assert all(row.head_rows is None or row.head_rows < active for row in rows[name])
    # without a set, what the prompt does not bring is outside
    without = [row.n_outside for row in rows["tailored none"] if row.n_outside is not None]
    with_set = [row.n_outside for row in rows["tailored 0.0"] if row.n_outside is not None]
    assert sum(without) >= sum(with_set) and sum(without) > 0


def test_a_pruned_vocabulary_is_that_of_its_set(
    tiny_split: Any, asked: DataSet, tmp_path: Path
) -> None:
    """Neither the prompt nor the answer has a token outside; the prompt brings none of its own."""
    core = tiny_split("llama").core
    computed(core, asked, tmp_path / "r.jsonl")
    read = read_results([tmp_path / "r.jsonl"])
    run = next(run for run in read.runs.values() if run.variant.startswith("pruned"))
    with contextlib.closing(TailoredLlama(core, n_ctx=64, mode="tailored", verbose=False)) as llm:
        n_always = len(llm.active_ids)
        assert run.set_rows is not None
        for row in read.of(run.key).values():
            assert row.head_rows == n_always + run.set_rows


def test_nothing_is_computed_twice(tiny_split: Any, asked: DataSet, tmp_path: Path) -> None:
    core, path = tiny_split("llama").core, tmp_path / "r.jsonl"
    few = Options(n_ctx=256, n_threads=1, limit=1)
    assert len(computed(core, asked, path, few)) == len(VARIANTS)
    assert len(computed(core, asked, path)) == 3 * len(VARIANTS)
    assert computed(core, asked, path) == []
    whole = path.read_bytes()
    # a kill tears the last line: only that answer is computed again
    path.write_bytes(whole[:-9])
    assert len(computed(core, asked, path)) == 1
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    keys = [(x["kind"], x.get("run"), x["key"]) for x in lines]
    assert len(keys) == len(set(keys))
    # another prompt is another result
    other = DataSet(asked.task.limited(shots=0, max_tokens=None), asked.data, asked.train)
    assert len(computed(core, other, path)) == 4 * len(VARIANTS)


def test_times_of_other_threads_do_not_mix(tiny_split: Any, asked: DataSet, tmp_path: Path) -> None:
    core, path = tiny_split("llama").core, tmp_path / "r.jsonl"
    computed(core, asked, path, Options(n_ctx=256, n_threads=1, limit=1))
    before = path.read_bytes()
    for threads in (2, None):
        with pytest.raises(VocabTailorError, match=r"r\.jsonl.*began with -t 1"):
            computed(core, asked, path, Options(n_ctx=256, n_threads=threads))
    assert path.read_bytes() == before
    other = DataSet(asked.task.limited(shots=0, max_tokens=None), asked.data, asked.train)
    assert computed(core, other, path, Options(n_ctx=256, n_threads=2, limit=1))


def test_a_killed_command_goes_on(tiny_split: Any, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    many = [{"source": f"{r['source']} {i}", "target": "x"} for i in range(60) for r in ROWS]
    write_jsonl(data, many)
    command = [
        *(sys.executable, "-m", "vocabtailor_gguf", "eval", "-m", str(tiny_split("llama").core)),
        *("--task", "translation", "--data", str(data), "--mode", "full", "-n", "4", "-c", "512"),
        *("-t", "1", "-o", str(path)),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not path.exists() or path.read_bytes().count(b"\n") < 20:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.5)  # the child that computes ends with its parent
    n_before = path.read_bytes().count(b"\n")
    assert 20 <= n_before < len(many)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(many)} rows" in done.stdout
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [x["row"] for x in lines if x["kind"] == "row"]
    assert sorted(rows) == list(range(len(many)))


def test_faults_are_told_before_anything_is_computed(
    tiny_split: Any, asked: DataSet, tmp_path: Path
) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"source": "a"}])
    core = str(tiny_split("llama").core)
    with ResultsFile(tmp_path / "r.jsonl") as results:
        sets = [asked, DataSet(TASK, str(bad), asked.train)]
        with pytest.raises(BadFileError, match="'target': found nothing"):
            evaluate([(core, None)], sets, VARIANTS, results, OPTIONS)
        assert not results.read.runs


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        ResultsFile(tmp_path / "r.jsonl"),
        pytest.raises(BadFileError, match="another process"),
    ):
        ResultsFile(tmp_path / "r.jsonl")
    ResultsFile(tmp_path / "r.jsonl").close()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "not an object"),
        ('{"kind": "x"}', "kind"),
        ('{"kind": "run", "format": "x"}', "expected ('vocabtailor.eval', 1)"),
        ('{"kind": "row", "run": "a"}', "key: found nothing"),
        ('{"kind": "row", "run": 1}', "run: found int, expected str"),
    ],
)
def test_files_that_are_not_results(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "r.jsonl"
    row = {
        **{"kind": "row", "run": "a", "key": "b", "row": 0, "reference": "", "n_prompt": 1},
        **{"n_shots": 0, "tokens": [1], "text": "", "prompt_ms": 1, "ms": 0.5, "head_rows": None},
        **{"n_outside": 1, "n_full": 1, "memory": 3, "passed": None, "ended": None},
    }
    path.write_text(f"{json.dumps(row)}\n{line}\n", encoding="utf-8")
    with pytest.raises(BadFileError, match=re.escape(told)):
        read_results([path])
    path.write_text(f"{json.dumps({**row, 'more': 1})}\n", encoding="utf-8")
    with pytest.raises(BadFileError, match="does not have"):
        read_results([path])
    path.write_text(f"{json.dumps(row)}\n", encoding="utf-8")
    assert read_results([path]).of("a")["b"].tokens == (1,)


@pytest.mark.parametrize("content", ['{"ids": [1, 2]}', "a note", '{"kind": "run", "x": 1}'])
def test_a_file_of_ones_own_is_not_cut(tmp_path: Path, content: str) -> None:
    path = tmp_path / "set.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadFileError, match=r"set\.json: its last line has no end"):
        ResultsFile(path)
    assert path.read_text(encoding="utf-8") == content


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    import resource

    run = Run(*("a" * 8 for _ in range(7)), {}, "base", 1, "full", None, None, "0")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "r.jsonl"
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with (
            pytest.raises(BadFileError, match=r"r\.jsonl: cannot be written"),
            ResultsFile(path) as results,
        ):
            results.add(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with ResultsFile(path) as results:  # nobody holds its lock, and the torn line is gone
        assert not results.read.runs
        results.add(run)
    assert list(read_results([path]).runs.values()) == [run]


@pytest.mark.parametrize("torn", ["", "{", '{"kind": "ro', '{"kind": "row", "run": "ab'])
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(torn, encoding="utf-8")
    ResultsFile(path).close()
    assert path.read_bytes() == b""


def test_what_reports_say(tiny_split: Any, asked: DataSet, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    computed(tiny_split("llama").core, asked, path)
    read = read_results([path])
    (group,) = summarise(read)
    assert (group.data, group.task, group.style, group.shots) == ("mt", "translation", "base", 1)
    full, exact, *others = group.variants
    assert [f.name for f in full.figures] == ["BLEU", "chrF"]
    assert full.figures[0].difference is None
    assert (exact.identical, exact.agreement) == (1.0, 1.0)
    for figure in exact.figures:
        assert figure.difference is not None
        assert (figure.difference.low, figure.difference.high) == (0, 0)
    runs = {run.variant: read.of(run.key) for run in read.runs.values()}
    for found in others:
        pairs = [(row.tokens, runs["full"][key].tokens) for key, row in runs[found.variant].items()]
        assert found.identical == np.mean([a == b for a, b in pairs])
        same = sum(s == t for a, b in pairs for s, t in zip(a, b, strict=False))
        assert found.agreement == same / sum(max(len(a), len(b)) for a, b in pairs)
        rows = runs[found.variant].values()
        assert found.outside == sum(r.n_outside or 0 for r in rows) / sum(r.n_full for r in rows)
        assert found.memory > 0
    # a run that was killed before its first answer
    begun = dataclasses.replace(next(iter(read.runs.values())), key="x", group="y")
    read.add(begun)
    assert summarise(read) == [group]
    with pytest.raises(VocabTailorError, match="no answers of the full vocabulary"):
        summarise(Read({"x": begun}))
    with pytest.raises(VocabTailorError, match="no answers of the full vocabulary"):
        read.rows.pop(next(key for key, run in read.runs.items() if run.variant == "full"))
        summarise(read)


def test_stops_and_cuts(tiny_split: Any) -> None:
    assert cut("a stop b end", ("end", "stop")) == "a "
    assert cut("abc", ()) == "abc"
    with contextlib.closing(
        TailoredLlama(tiny_split("llama").core, n_ctx=256, n_threads=1, verbose=False)
    ) as llm:
        answerer = Answerer(llm)
        prompt = tuple(llm.tokenize(b"hello world"))
        whole = answerer.answer(Question("", prompt, 0, 12, ()))
        assert len(whole.tokens) == 12
        stop = whole.text[5:8]
        found = answerer.answer(Question("", prompt, 0, 12, (stop,)))
        assert found.text == whole.text[: whole.text.index(stop)]
        assert found.tokens == whole.tokens[: len(found.tokens)]
        again = answerer.answer(Question("", prompt, 0, 12, ()))  # what broke off leaves no trace
        assert again.tokens == whole.tokens


def test_a_worker_loads_anew_for_other_threads(tiny_split: Any) -> None:
    files = tiny_split("llama")
    loading = Loading("k", str(files.core), str(files.vocab), "full", None, True, 256, 1)
    question = Question("q", (5, 6, 7), 0, 4, ())
    with contextlib.closing(Loaded()) as loaded:
        first = loaded.answer(loading, [question])
        model = loaded._llm
        loaded.answer(loading, [question])
        assert model is not None and loaded._llm is model and model.n_threads == 1
        again = loaded.answer(dataclasses.replace(loading, n_threads=2), [question])
        assert loaded._llm is not model and loaded._llm.n_threads == 2
    assert first[0].tokens == again[0].tokens


@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba"])  # one memory cannot be cut
@pytest.mark.parametrize("mode", ["full", "exact", "tailored"])
def test_an_answer_does_not_depend_on_the_one_before(tiny_split: Any, name: str, mode: Any) -> None:
    """Bit for bit: in any order, from an empty context, and after prompts that go on alike."""
    core = tiny_split(name).core
    options: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "verbose": False}
    random = np.random.default_rng(7)
    shared = tuple(random.integers(3, 300, 50).tolist())
    ends = [(9, 8, 7), (9, 8, 7, 6, 5), (9, 8, 30), tuple(range(40, 70))]
    questions = [Question("", (*shared, *end), len(shared), 12, ()) for end in ends]
    logits = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2], [1]):
        with contextlib.closing(TailoredLlama(core, mode=mode, **options)) as llm:
            answerer = Answerer(llm)
            for i in order:
                answer = answerer.answer(questions[i])
                logits.append((i, answer.tokens, llm.last_logits()[1].max()))
    for i in range(len(ends)):
        assert len({found[1:] for found in logits if found[0] == i}) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Dask are not ours
def test_dask_answers_the_same(tiny_split: Any, asked: DataSet, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    core = tiny_split("llama").core
    computed(core, asked, tmp_path / "here.jsonl")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address=None, processes=True
    ) as cluster:
        options = Options(n_ctx=256, n_threads=1, scheduler=cluster.scheduler_address)
        computed(core, asked, tmp_path / "there.jsonl", options)
    here, there = (read_results([tmp_path / f"{name}.jsonl"]) for name in ("here", "there"))
    assert here.runs == there.runs
    for key in here.runs:
        tokens = [{k: r.tokens for k, r in read.of(key).items()} for read in (here, there)]
        assert tokens[0] == tokens[1]


# ---- the command ----


def test_the_command(
    tiny_split: Callable[..., Any],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two models and two sets of two tasks in one call; the report needs the file alone."""
    TokenSet(range(280, 300)).save(tmp_path / "my.tokens.json")
    other = write_jsonl(tmp_path / "qa.test.jsonl", [{"question": "1 + 1?", "answer": "#### 2"}])
    write_jsonl(tmp_path / "qa.train.jsonl", [{"question": "2 + 2?", "answer": "#### 4"}])
    path = tmp_path / "r.jsonl"
    base = [
        *("eval", "-m", str(tiny_split("llama").core), str(tiny_split("qwen2").core)),
        *("--task", "translation", "maths", "--data", str(data), str(other), "--limit", "2"),
        *("--mode", "exact", "tailored", "--set", str(tmp_path / "my.tokens.json"), "0.0"),
        *("-n", "4", "-c", "512", "-t", "1", "--shots", "1", "-o", str(path)),
    ]
    assert main(base) == 0
    table = capsys.readouterr().out
    assert table.count("\n| full |") == 4
    assert table.count("| exact |") == table.count("| tailored my | 20 |") == 4
    assert "qwen2" in table and "chat prompts with 1 examples" in table
    assert main(["eval", "--report", str(path)]) == 0
    assert capsys.readouterr().out == table
    assert main([*base, "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)
    assert [g["data"] for g in groups] == ["mt", "qa"] * 2
    assert groups[1]["variants"][0]["figures"][0]["name"] == "accuracy"
    n = path.read_bytes().count(b"\n")
    assert n == 4 * 4 + 2 * (2 + 1) * 4  # runs, and rows of two sets


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "needs -m"),
        (["-o", "{tmp}/r.jsonl", "--task", "maths", "code", "maths"], "one for each of --data"),
        (["-o", "{tmp}/r.jsonl", "--train", "a", "b"], "one for each of --data"),
        (["-o", "{tmp}/r.jsonl", "--mode", "fast"], "mode 'fast'"),
        (["-o", "{tmp}/r.jsonl", "--shots", "-1"], "--shots"),
        (["-o", "{tmp}/r.jsonl", "--task", "cooking"], "task 'cooking'"),
        (["-o", "{tmp}/r.jsonl", "--data", "{tmp}/mt.train.jsonl"], "come from other rows"),
        (["-o", "{tmp}/r.jsonl", "--train", "{data}"], "is in"),
        (["--report", "{tmp}/none.jsonl"], "cannot be read"),
    ],
)
def test_wrong_usage(
    tiny_split: Callable[..., Any],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    told: str,
) -> None:
    given = [x.replace("{tmp}", str(tmp_path)).replace("{data}", str(data)) for x in more]
    core = str(tiny_split("llama").core)
    base = ["eval", "-m", core, "--task", "translation", "--data", str(data), "-c", "512"]
    assert main([*base, *given]) == 1
    assert told in capsys.readouterr().err


REAL = {
    "mt_en_it": "translation:from=English,to=Italian",
    "mt_en_zh": "translation:from=English,to=Chinese",
    "summ_xsum": "summarisation",
    "ie_squad": "extraction",
    "code_mbpp": "code",
    "math_gsm8k": "maths",
}


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_data(
    name: str, smollm2_split: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Needs a folder with NAME.train.jsonl and NAME.test.jsonl of these six sets."""
    folder = Path(os.environ.get("VOCABTAILOR_EVALDATA", "evaldata"))
    data = folder / f"{name}.test.jsonl"
    if not data.is_file():
        pytest.skip(f"{data} is missing: set VOCABTAILOR_EVALDATA to its folder")
    command = [
        *("eval", "-m", str(smollm2_split.core), "--task", REAL[name], "--data", str(data)),
        *("--mode", "exact", "tailored", "--limit", "1", "-n", "8", "-t", "1", "--json"),
        *("-o", str(tmp_path / "r.jsonl")),
    ]
    assert main(command) == 0
    (group,) = json.loads(capsys.readouterr().out)
    full, exact, *tailored = group["variants"]
    assert exact["identical"] == 1 and exact["agreement"] == 1
    assert full["head_rows"] == 49152
    assert all(t["head_rows"] < 49152 for t in tailored) and tailored
