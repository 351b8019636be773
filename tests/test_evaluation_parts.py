"""Templates, tasks, rows, prompts, variants and sets of the evaluation."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinydata import ROWS, write_jsonl

from vocabtailor_gguf.errors import BadFileError, MismatchError, VocabTailorError
from vocabtailor_gguf.evaluation.prompts import Prompter, prune, style_of, unknown_token
from vocabtailor_gguf.evaluation.rows import Row, load_data, spread, training_file
from vocabtailor_gguf.evaluation.sets import TaskSets
from vocabtailor_gguf.evaluation.tasks import METRICS, STYLES, built_in_tasks, load_task
from vocabtailor_gguf.evaluation.templates import Template
from vocabtailor_gguf.evaluation.variants import Variant, parse_variants
from vocabtailor_gguf.runtime.tokenizer import always_on, load_tokenizer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of five test rows, with three training rows beside it."""
    write_jsonl(tmp_path / "mt.train.jsonl", ROWS[5:])
    return write_jsonl(tmp_path / "mt.test.jsonl", ROWS[:5])


@pytest.fixture
def tokenizer(tiny_split: Callable[..., Any], request: pytest.FixtureRequest) -> Iterator[Any]:
    name = getattr(request, "param", "llama")
    with contextlib.closing(load_tokenizer(tiny_split(name).vocab)) as loaded:
        yield loaded


# ---- templates ----


def test_a_template_is_cut_before_its_output() -> None:
    template = Template.parse("{from}: {source}\nAnswer:  {target}\n", "target", {"from": "A"}, "t")
    record = {"source": "{target} {x}", "target": "y{source}"}
    assert template.fields == ("source",)
    assert template.prompt(record) == "A: {target} {x}\nAnswer:"
    assert template.answer(record) == "  y{source}\n"


@pytest.mark.parametrize("text", ["no place", "{target} {target}", "{target} {source}"])
def test_templates_that_cannot_be_cut(text: str) -> None:
    with pytest.raises(BadFileError, match="where: found"):
        Template.parse(text, "target", {}, "where")


# ---- tasks ----


def test_the_tasks_of_the_package() -> None:
    assert sorted(built_in_tasks()) == sorted(METRICS)
    for name in built_in_tasks():
        task = load_task(name)
        assert task.metric == name
        for style in STYLES:
            assert task.output in task.fields(style)


def test_variables_and_replaced_templates(tmp_path: Path) -> None:
    task = load_task("translation:from=English,to=Italian,languages=it+en")
    prompt = task.form("base").template.prompt({"source": "Hi"})
    assert prompt == "English: Hi\nItalian:"
    assert task.languages == ("it", "en")
    (tmp_path / "translation.base.txt").write_text("<{source}> {target}", encoding="utf-8")
    mine = load_task("translation", templates=tmp_path)
    assert mine.form("base").template.prompt({"source": "Hi"}) == "<Hi>"
    assert "alone" in mine.form("chat").template.before  # the others stay


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Q {q}\nA {a}\n", encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(
        'metric: extraction\noutput: a\nbase: {template: mine.txt, stop: ["\\n"]}\n',
        encoding="utf-8",
    )
    task = load_task(str(path))
    assert (task.shots, task.max_tokens, task.form("base").stop) == (0, 128, ("\n",))
    assert task.fields("base") == ("q", "a")
    with pytest.raises(VocabTailorError, match="no template for chat"):
        task.form("chat")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metric: x\noutput: a", "metric"),
        ("metric: code", "output"),
        ("- 1", "expected keys"),
        ("metric: [", "not YAML"),
        ("metric: code\noutput: a", "expected base, chat or both"),
        ("metric: code\noutput: a\nbase: {template: a.txt, end: 1}", "base"),
        ("metric: code\noutput: a\nbase: {template: a.txt, stop: [1]}", "base"),
        ("metric: code\noutput: a\nbase: {template: ../a.txt}", "no such template"),
        ("metric: code\noutput: a\nshots: -1", "shots"),
        ("metric: code\noutput: a\nshots: true", "shots"),
        ("metric: code\noutput: a\noptions: {x: y}", "options"),
        ("metric: code\noutput: a\nvariables: {x: 1}", "variables"),
        ("metric: code\noutput: a\nlanguages: it", "languages"),
        ("metric: code\noutput: a\nwhat: 1", "'what'"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_bad_task_files(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadFileError, match=re.escape(told)):
        load_task(str(path))


@pytest.mark.parametrize("asked", ["cooking", "translation:colour=red", "translation:to"])
def test_tasks_that_are_not_there(asked: str) -> None:
    with pytest.raises(VocabTailorError, match="expected"):
        load_task(asked)


# ---- rows ----


def test_rows_and_their_training_file(data: Path) -> None:
    task = load_task("translation")
    train = training_file(str(data))
    assert train == str(data.with_name("mt.train.jsonl"))
    found = load_data(str(data), task, "base", train=train, limit=2)
    assert [row.fields for row in found.rows] == ROWS[:2]
    assert [row.fields for row in found.train] == ROWS[5:]
    whole = load_data(str(data), task, "base", train=train)
    assert whole.sha256 == found.sha256 and len(whole.rows) == 5
    assert training_file(train) is None


def test_a_training_row_must_not_be_tested(data: Path) -> None:
    task = load_task("translation")
    changed = [{**ROWS[0], "target": "another"}]
    train = write_jsonl(data.with_name("t.jsonl"), [*ROWS[5:], *changed])
    with pytest.raises(MismatchError, match=r"row 3 is in .* too"):
        load_data(str(data), task, "base", train=str(train), limit=1)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"source": "a"}, "'target': found nothing"),
        ({"source": 1, "target": "a"}, "'source': found int"),
        ([1], "found list, expected an object"),
        ({"source": "a \ud83d b", "target": "a"}, "'source': half of a surrogate pair"),
        ({"source": "a", "target": "\udc00"}, "'target': half of a surrogate pair"),
    ],
)
def test_bad_rows(tmp_path: Path, row: Any, told: str) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [row])
    with pytest.raises(BadFileError, match=re.escape(told)):
        load_data(str(path), load_task("translation"), "base", train=None)


def test_the_tests_of_code(tmp_path: Path) -> None:
    task = load_task("code")
    row = {"prompt": '"""\nAdd.\nassert f(1) == 2\nassert f(2) == 3\n"""\n', "completion": "x"}
    path = write_jsonl(tmp_path / "x.jsonl", [row])
    found = load_data(str(path), task, "base", train=None)
    assert found.rows[0].tests == "assert f(1) == 2\nassert f(2) == 3"
    odd = "assert f('\\d \u2028') == 1" + "\r\n"
    path = write_jsonl(path, [{**row, "prompt": odd}])
    assert load_data(str(path), task, "base", train=None).rows[0].tests == odd.removesuffix("\n")
    for bad in ("assert f(1,\n  2) == 3", "assert f(1) = 3", "assert '\0'"):
        path = write_jsonl(path, [{**row, "prompt": bad}])
        with pytest.raises(BadFileError, match="expected asserts of one line"):
            load_data(str(path), task, "base", train=None)
    path = write_jsonl(path, [{**row, "prompt": "Add."}])
    with pytest.raises(BadFileError, match="begins with assert"):
        load_data(str(path), task, "base", train=None)


def test_examples_are_spread() -> None:
    rows = [Row(i, {}) for i in range(10)]
    assert [row.number for row in spread(rows, 2)] == [2, 7]
    assert [row.number for row in spread(rows, 20)] == list(range(10))
    assert spread([], 2) == []


# ---- prompts ----


def test_base_prompts(tokenizer: Any, data: Path) -> None:
    task = load_task("translation")
    found = load_data(str(data), task, "base", train=training_file(str(data)))
    prompter = Prompter(tokenizer, task, "base", found.train[:2], 1024)
    prompt = prompter.prompt(found.rows[0])
    text = tokenizer.detokenize(list(prompt.tokens)).decode()
    expected = "".join(f"Source: {r['source']}\nTarget: {r['target']}\n\n" for r in ROWS[5:7])
    assert text.strip() == f"{expected}Source: {ROWS[0]['source']}\nTarget:"
    assert prompt.n_shots == 2 and prompt.tokens[0] == tokenizer.token_bos()
    shared = prompt.tokens[: prompt.n_shared]
    text = tokenizer.detokenize(list(shared)).decode()
    assert text.strip().startswith(expected.strip()) and ROWS[0]["source"] not in text
    others = [prompter.prompt(row) for row in found.rows]
    assert all(p.tokens[: len(shared)] == shared for p in others)
    keys = {prompter.prompt(row).key for row in found.rows}
    assert len(keys) == len(found.rows)


def test_examples_give_way_where_the_context_is_short(tokenizer: Any, data: Path) -> None:
    task = load_task("translation").limited(shots=None, max_tokens=8)
    found = load_data(str(data), task, "base", train=training_file(str(data)))
    whole = Prompter(tokenizer, task, "base", found.train, 4096).prompt(found.rows[0])
    less = Prompter(tokenizer, task, "base", found.train, len(whole.tokens)).prompt(found.rows[0])
    assert (whole.n_shots, less.n_shots) == (3, 2)
    with pytest.raises(VocabTailorError, match=r"row 0: .* raise -c"):
        Prompter(tokenizer, task, "base", found.train, 20).prompt(found.rows[0])


@pytest.mark.parametrize("tokenizer", ["qwen2"], indirect=True)
def test_chat_prompts(tokenizer: Any, data: Path) -> None:
    assert style_of(tokenizer) == "chat"
    task = load_task("translation:to=Italian")
    found = load_data(str(data), task, "chat", train=training_file(str(data)))
    prompter = Prompter(tokenizer, task, "chat", found.train[:1], 1024)
    prompt = prompter.prompt(found.rows[0])
    start = tokenizer.tokenize(b"<|im_start|>", add_bos=False, special=True)
    assert len(start) == 1 and list(prompt.tokens).count(start[0]) == 4
    assert prompter.profiled(found.rows[0])[1] == ROWS[0]["target"]
    assert prompter.whole(found.rows[0]).startswith("<|im_start|>user\nTranslate.")


def test_a_model_without_a_chat_template(tokenizer: Any) -> None:
    assert style_of(tokenizer) == "base"
    with pytest.raises(VocabTailorError, match="no chat template"):
        Prompter(tokenizer, load_task("maths"), "chat", [], 64)


def test_pruning_a_prompt(tokenizer: Any) -> None:
    task = load_task("translation")
    prompt = Prompter(tokenizer, task, "base", [], 1024).prompt(Row(0, ROWS[0]))
    unknown = unknown_token(tokenizer)
    assert unknown == 0
    kept = np.array(sorted(set(prompt.tokens[::2])), dtype=np.int32)
    seen = prune(prompt, kept, unknown)
    assert len(seen.tokens) == len(prompt.tokens)
    for token, before in zip(seen.tokens, prompt.tokens, strict=True):
        assert token == (before if before in kept else unknown)
    gone = prune(prompt, kept, None)
    assert all(t in kept for t in gone.tokens)
    before = prompt.tokens[: prompt.n_shared]
    assert gone.n_shared == sum(t in kept for t in before) < len(gone.tokens)


# ---- variants and sets ----


def test_variants() -> None:
    found = parse_variants(["exact", "tailored", "pruned:wide"], ["0.01", "none", "500"])
    names = [v.name for v in found]
    assert names == [
        *("full", "exact", "tailored 0.01", "tailored none", "tailored 500", "pruned wide"),
    ]
    assert parse_variants(["full"], []) == [Variant("full")]
    assert Variant("tailored", "a/b.tokens.json").name == "tailored b"
    assert not Variant("tailored", "a.json").is_profiled
    assert [v.of for v in parse_variants(["pruned"], ["none", "0"])] == ["none", "0"]


@pytest.mark.parametrize(
    ("modes", "sets"),
    [
        (["fast"], []),
        (["tailored"], ["1.5"]),
        (["tailored"], ["huge"]),
        (["full:0.1"], []),
        (["pruned:none"], []),
        (["pruned"], ["none"]),  # left out without a word before
    ],
)
def test_variants_that_are_not_there(modes: list[str], sets: list[str]) -> None:
    with pytest.raises(VocabTailorError):
        parse_variants(modes, sets)


def test_sets_come_from_the_training_rows(
    tokenizer: Any, tiny_split: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    vocab = tiny_split("llama").vocab
    task = load_task("translation")
    train = [Row(0, {"source": "time", "target": "time water"})]
    prompter = Prompter(tokenizer, task, "base", train, 1024)
    sets = TaskSets(vocab, prompter, train, n_processes=1)
    on = set(always_on(tokenizer._model.vocab).tolist())

    def ids(text: str) -> set[int]:
        return set(tokenizer.tokenize(text.encode(), add_bos=False)) - on

    tailored, pruned = (sets.of(Variant(way, "0.0")) for way in ("tailored", "pruned"))
    assert tailored is not None and pruned is not None
    assert set(tailored.ids.tolist()) == ids(" time water\n\n") - ids("Source: time\nTarget:")
    assert set(pruned.ids.tolist()) == ids("Source: time\nTarget: time water\n\n")
    two = sets.of(Variant("pruned", "2"))
    assert two is not None and len(two) == 2
    assert sets.of(Variant("tailored")) is None
    pruned.save(tmp_path / "p.tokens.json")
    loaded = sets.of(Variant("tailored", str(tmp_path / "p.tokens.json")))
    assert loaded is not None and np.array_equal(loaded.ids, pruned.ids)
    copying = [Row(0, {"source": "time water", "target": "water"})]
    for of in ("0.0", "5", "small"):
        assert TaskSets(vocab, prompter, copying, n_processes=1).of(Variant("tailored", of)) is None
    assert sets.of(Variant("tailored", "1.0")) is None  # a tolerance that drops everything
    with pytest.raises(VocabTailorError, match="--train"):
        TaskSets(vocab, prompter, []).of(Variant("tailored", "0.01"))
