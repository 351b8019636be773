"""Rankings, coverage, the model's own outputs and reports."""

from __future__ import annotations

import contextlib
import json
import re
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf import TailoredLlama, TokenSet, VocabStore, VocabTailorError, profile_corpus
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.profiling.counting import count
from vocabtailor_gguf.profiling.coverage import TokenisedExample, measure_coverage, own_outputs
from vocabtailor_gguf.profiling.inputs import Example
from vocabtailor_gguf.profiling.languages import word_weights
from vocabtailor_gguf.profiling.profile import Profile, profile
from vocabtailor_gguf.profiling.tasks import TASKS
from vocabtailor_gguf.runtime.tokenizer import Forms, load_tokenizer

WORDS = "the cat sat there with other people; then she made some time for water".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a made-up translation task; later words are rarer."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("corpus") / "train.jsonl"
    odds = 1.0 / np.arange(1, len(WORDS) + 1)
    with open(path, "w", encoding="utf-8") as f:
        for _ in range(60):
            source, target = (" ".join(rng.choice(WORDS, 5, p=odds / odds.sum())) for _ in range(2))
            f.write(json.dumps({"source": source, "target": target}) + "\n")
    return path


@pytest.fixture(scope="module")
def found(tiny_split: Callable[[str], Any], corpus: Path) -> Profile:
    """The profile of the corpus for a tiny model."""
    return profile(
        tiny_split("llama").vocab, [str(corpus)], task=TASKS["translation"], n_processes=1
    )


def test_a_ranking_holds_every_token_once(found: Profile) -> None:
    n_vocab = found.frequency.size
    assert np.array_equal(
        np.sort(np.concatenate([found.ranking, found.always_on])), np.arange(n_vocab)
    )
    frequency = found.frequency[found.ranking]
    assert (np.diff(frequency[: found.n_known]) <= 0).all()
    assert not frequency[found.n_known :].any()


def test_sets_by_size_are_heads_of_the_ranking(found: Profile) -> None:
    for rows in (1, 5, found.n_known):
        assert set(found.with_rows(rows).ids.tolist()) == set(found.ranking[:rows].tolist())
    assert len(found.with_rows(10**6)) == found.n_known
    assert len(found.with_rows(found.n_known + 9, fill=True)) == found.n_known + 9
    kept = found.at_tolerance(0.2)
    assert set(kept.ids.tolist()) == set(found.ranking[: len(kept)].tolist())


def test_recipes(found: Profile, tiny_split: Callable[[str], Any], corpus: Path) -> None:
    n_vocab = found.frequency.size
    assert np.array_equal(found.of_recipe("small").ids, found.at_tolerance(0.01).ids)
    # the always-on tokens of so small a vocabulary are more than an eighth of it
    with pytest.raises(VocabTailorError, match="empty"):
        found.of_recipe("balanced")
    bigger = tiny_split("llama", n_vocab=8192).vocab
    for name, share in (("balanced", 0.12), ("wide", 0.25)):
        chosen = profile_corpus(bigger, corpus, task="translation", recipe=name)
        assert chosen.provenance["recipe"] == name
        assert len(chosen) + found.always_on.size == pytest.approx(share * 8192, abs=1)
    assert n_vocab < 8192
    with pytest.raises(VocabTailorError, match="recipe"):
        found.of_recipe("huge")


def test_words_join_in_the_order_of_their_weight(tiny_split: Callable[[str], Any]) -> None:
    pytest.importorskip("wordfreq")
    vocab = tiny_split("llama").vocab
    listed = profile(vocab, task=TASKS["text"], languages=["en"], n_words=200)
    tokenizer = load_tokenizer(vocab)
    weights = word_weights(tokenizer, ["en"], 200)
    tokenizer.close()
    assert set(weights) == set(listed.words.tolist()) | (
        set(weights) & set(listed.always_on.tolist())
    )
    assert (np.diff([weights[t] for t in listed.words.tolist()]) <= 0).all()
    assert listed.ranking[: listed.words.size].tolist() == listed.words.tolist()
    assert len(listed.at_tolerance(0.01)) == listed.words.size == listed.n_known


def test_fill_stays_in_the_scripts_of_the_corpus(gemma_split: Any, tmp_path: Path) -> None:
    pytest.importorskip("regex")
    path = tmp_path / "a.txt"
    path.write_text("Una frase italiana, abbastanza lunga da bastare.\n", encoding="utf-8")
    latin = profile(gemma_split.vocab, [str(path)], task=TASKS["text"])
    tokenizer = load_tokenizer(gemma_split.vocab)
    for text, expected in ((" Straße", True), ("дом", False), ("中国", False), ("123", True)):
        ids = tokenizer.tokenize(text.encode(), add_bos=False)
        on = set(latin.always_on.tolist()) | set(latin.fill.tolist())
        assert (set(ids) <= on) == expected, text
    tokenizer.close()


def test_coverage_by_hand(tiny_split: Callable[[str], Any]) -> None:
    tokenizer = load_tokenizer(tiny_split("llama").vocab)
    variants = Forms(tokenizer._model.vocab)
    n_vocab = tokenizer.n_vocab()
    base = next(i for i in range(259, n_vocab) if variants.find([i]).size)
    form = int(variants.find([base])[0])
    others = [i for i in range(300, n_vocab) if i not in (base, form)][:3]
    on = np.array([0, 1], dtype=np.int32)
    rest = [i for i in range(n_vocab) if i not in (0, 1, *others, base, form)]
    ranking = np.array([*others, *rest, base, form], dtype=np.int32)

    def example(prompt: list[int], output: list[int]) -> TokenisedExample:
        return TokenisedExample(np.array(prompt, np.int32), np.array(output, np.int32))

    covered = measure_coverage(
        [example([base], [0, others[0], base, form]), example([], [others[2], others[2], 1])],
        ranking,
        on,
        variants,
    )
    assert covered.n_texts == 2
    assert covered.share(0, "set") == pytest.approx(2 / 7)
    assert covered.share(0, "prompt") == pytest.approx(3 / 7)
    assert covered.share(0) == pytest.approx(4 / 7)
    assert covered.share(1) == pytest.approx(5 / 7)
    assert covered.share(3) == 1.0
    assert covered.share(3, "prompt") == pytest.approx(6 / 7)
    assert (covered.whole(0), covered.whole(1), covered.whole(3)) == (0.0, 0.5, 1.0)
    assert covered.rows_for(5 / 7) == 1
    assert covered.rows_for(1.0) == 3
    assert covered.missed(1, 5) == [(others[2], 2)]
    with pytest.raises(VocabTailorError, match="no output tokens"):
        measure_coverage([example([base], [])], ranking, on, variants)
    variants.close()
    tokenizer.close()


def test_coverage_is_what_the_model_can_say(found: Profile, tiny_split: Any) -> None:
    """A set with 100% coverage of the model's own outputs gives these very outputs."""
    files = tiny_split("llama")
    common: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    prompts = [Example(f"the cat {w}", "") for w in WORDS[:4]]
    with contextlib.closing(TailoredLlama(files.core, mode="full", **common)) as full:
        answers = list(own_outputs(full, prompts, max_tokens=24))
        variants = Forms(full._model.vocab)
        covered = measure_coverage(answers, found.ranking, found.always_on, variants)
        variants.close()
    assert [a.output.size for a in answers] == [24] * 4
    rows = covered.rows_for(1.0)
    assert covered.whole(rows) == 1.0 and covered.whole(rows - 1) < 1.0
    for size in (rows, rows - 1):
        chosen = TokenSet(found.ranking[:size]) if size else None
        asked = {"mode": "tailored", "token_set": chosen, **common}
        with contextlib.closing(TailoredLlama(files.core, **asked)) as llm:
            again = list(own_outputs(llm, prompts, max_tokens=24))
        same = [np.array_equal(a.output, b.output) for a, b in zip(answers, again, strict=True)]
        assert all(same) == (size == rows)


def test_shots_and_stops(tiny_split: Any) -> None:
    class Recorder(llama_cpp.Llama):  # type: ignore[misc]
        """Keeps what it was asked."""

        prompts: list[str]

        def generate(self, tokens: Any, **kwargs: Any) -> Any:
            self.prompts.append(self.detokenize(tokens).decode())
            yield from self.tokenize(b" there\nthen", add_bos=False)

    llm = Recorder(str(tiny_split("llama").vocab), vocab_only=True, n_ctx=200, verbose=False)
    llm.prompts = []
    llm.n_ctx = lambda: 200
    shots = [Example("Q: one\nA:", " two\n")]
    (answer,) = own_outputs(llm, [Example("Q: the\nA:", "")], shots=shots, stop=["\n"])
    assert llm.prompts == [" Q: one\nA: two\nQ: the\nA:"] or llm.prompts == [
        "Q: one\nA: two\nQ: the\nA:"
    ]
    assert llm.detokenize(answer.output.tolist()).decode().strip(" ") == "there\n"
    llm.close()


@pytest.mark.parametrize("own", [False, True])
def test_reports(
    tiny_split: Any, corpus: Path, tmp_path: Path, own: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    files = tiny_split("llama", n_vocab=4096)
    asked = ["profile", "-m", str(files.vocab), "--data", str(corpus), "--task", "translation"]
    asked += ["--eval", str(corpus), "-t", "1"]
    if own:
        asked += ["--core", str(files.core), "--own", "2", "--shots", "1"]
    page, text = tmp_path / "r.html", tmp_path / "r.md"
    assert main([*asked, "--report", str(page)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(page)]
    assert main([*asked, "--report", str(text)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(text), str(text.with_suffix(".svg"))]
    shown = page.read_text(encoding="utf-8")
    assert "Sets by size" in shown and "recipe balanced" in shown and "tolerance 0.01" in shown
    assert ("own outputs" in shown) == own
    # self-contained: nothing is fetched
    assert not re.findall(r'(?:src|href)="(?!#)[^"]+"', shown)
    xml.etree.ElementTree.fromstring(text.with_suffix(".svg").read_text(encoding="utf-8"))
    table = [line for line in text.read_text(encoding="utf-8").splitlines() if "| 100%" in line]
    assert len({line.count("|") for line in table}) == 1


def test_a_corpus_of_which_a_tolerance_leaves_nothing(
    tiny_split: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "train.jsonl"
    rows = [{"source": "time", "target": "time"}] * 30 + [{"source": "time", "target": "water"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = ["profile", "-m", str(tiny_split("llama").vocab), "--data", str(path), "-t", "1"]
    asked += ["--task", "translation", "--report", str(tmp_path / "r.md")]
    assert main(asked) == 0, capsys.readouterr().err
    told = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "| tolerance 0 |" in told and "| tolerance 0.1 |" not in told


def test_reports_that_cannot_be(
    tiny_split: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["profile", "-m", str(tiny_split("llama").vocab), "--data", str(corpus)]
    asked += ["--task", "translation"]
    for more, message in (
        ([], "needs -o"),
        (["--report", str(tmp_path / "r.pdf")], r"\.html or \.md"),
        (["-o", str(tmp_path / "s.json"), "--eval", str(corpus)], "need --report"),
        (["--report", str(tmp_path / "r.md"), "--core", "x"], "needs the prompts"),
        (["--report", str(tmp_path / "r.md"), "--eval", "none.jsonl"], "no such file"),
    ):
        assert main([*asked, *more]) == 1
        assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Dask are not ours
def test_dask_counts_the_same(tiny_split: Any) -> None:
    distributed = pytest.importorskip("distributed")
    rng = np.random.default_rng(0)
    texts = [Example(" ".join(rng.choice(WORDS, 50)), " ".join(rng.choice(WORDS, 8000)))]
    texts = texts * 20 + [Example("a", "b")]
    with (
        VocabStore(tiny_split("llama").vocab) as store,
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address=None, processes=True
        ) as cluster,
    ):
        alone = count(store, texts, input_aware=True, n_processes=1)
        spread = count(store, texts, input_aware=True, scheduler=cluster.scheduler_address)
    assert np.array_equal(alone.frequency, spread.frequency)
    assert (alone.n_documents, alone.n_tokens) == (spread.n_documents, spread.n_tokens)


def test_no_dask_scheduler(tiny_split: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("vocabtailor_gguf.profiling.workers._CONNECT_SECONDS", 1)
    with (
        VocabStore(tiny_split("llama").vocab) as store,
        pytest.raises(VocabTailorError, match="scheduler"),
    ):
        count(store, [Example("", "a")], input_aware=True, scheduler="tcp://127.0.0.1:9")
