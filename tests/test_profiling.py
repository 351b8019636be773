"""Profiling: inputs, the three stages, counts, sets."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabtailor_gguf import TokenSet, VocabStore, VocabTailorError, profile_corpus
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.errors import BadFileError, MismatchError, TokenIdError
from vocabtailor_gguf.profiling.counting import Counts, count
from vocabtailor_gguf.profiling.inputs import BadRecord, Example, examples, expand
from vocabtailor_gguf.profiling.languages import word_forms
from vocabtailor_gguf.profiling.scripts import in_scripts, script_pattern
from vocabtailor_gguf.profiling.tasks import TASKS, get_task
from vocabtailor_gguf.profiling.thresholds import keep_rows, keep_within
from vocabtailor_gguf.profiling.workers import process_executor
from vocabtailor_gguf.runtime.tokenizer import load_tokenizer

RECORDS = [
    {"source": "good day", "target": "buon giorno"},
    {"source": 'a "quote", and\ttab', "target": "sì, però"},
]
EXAMPLES = [
    Example("Source: good day\nTarget:", " buon giorno\n"),
    Example('Source: a "quote", and\ttab\nTarget:', " sì, però\n"),
]
TRANSLATION = get_task("translation")


def write(path: Path, kind: str) -> Path:
    if kind == "json":
        path.write_text(json.dumps(RECORDS), encoding="utf-8")
    elif kind in ("csv", "tsv"):
        with open(path, "w", newline="", encoding="utf-8") as f:
            rows = csv.DictWriter(f, ["source", "target"], delimiter="," if kind == "csv" else "\t")
            rows.writeheader()
            rows.writerows(RECORDS)
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
    else:
        path.write_text("\n".join(json.dumps(r) for r in RECORDS) + "\n\n", encoding="utf-8")
    return path


PACKED = [
    (kind, packed)
    for kind in ("jsonl", "json", "csv", "tsv")
    for packed in ("", ".gz", ".zst", ".bz2", ".xz", ".GZ")
]


@pytest.mark.parametrize(("kind", "packed"), [*PACKED, ("parquet", "")])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, kind: str, packed: str) -> None:
    path = write(tmp_path / f"train.{kind}", kind)
    if packed:
        data = path.read_bytes()
        half = data.index(b"\n") if b"\n" in data else 3
        # in two parts, as tools that compress in parallel write them
        parts = [compressor(packed)(part) for part in (data[:half], data[half:])]
        path.with_name(path.name + packed).write_bytes(b"".join(parts))
    assert list(examples(str(path) + packed, TRANSLATION)) == EXAMPLES


def compressor(suffix: str) -> Callable[[bytes], bytes]:
    if suffix == ".zst":
        found: Callable[[bytes], bytes] = pytest.importorskip("zstandard").compress
        return found
    known = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    return known[suffix.lower()]


LINES = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in RECORDS)
BOM = b"\xef\xbb\xbf"
CSV = (
    b'source,target\r\ngood day,buon giorno\r\n"a ""quote"", and\ttab","s\xc3\xac, per\xc3\xb2"\r\n'
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("crlf.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("bom.jsonl", BOM + LINES.encode()),
        ("boms.jsonl", b"".join(BOM + line.encode() for line in LINES.splitlines(True))),
        ("bom.json", BOM + json.dumps(RECORDS).encode()),
        ("lines.json", LINES.encode()),
        ("lines-bom.json", BOM + b"\r\n" + LINES.replace("\n", "\r\n").encode()),
        ("crlf.csv", CSV),
        ("bom.csv", BOM + CSV),
        ("UP.JSONL.GZ", gzip.compress(LINES.encode())),
        ("UP.CSV", CSV),
        ("bom.jsonl.bz2", bz2.compress(BOM + LINES.encode())),
        # compressed, though the name does not say so
        ("a.jsonl", gzip.compress(LINES.encode())),
        ("a.json", lzma.compress(LINES.encode())),
        ("lines.ndjson", LINES.encode()),
        ("sp ace \u00e9.jsonl", LINES.encode()),
    ],
)
def test_files_as_they_are_found(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert list(examples(str(path), TRANSLATION)) == EXAMPLES


def test_text_with_a_mark_and_the_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(BOM + b"one\r\ntwo\r\n\r\nthree\r\n")
    assert [e.output for e in examples(str(path), TASKS["text"])] == ["one\ntwo\n", "three\n"]


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"source": "go\u2028od", "target": "b\u0085"}\n', encoding="utf-8")
    assert [e.output for e in examples(str(path), TRANSLATION)] == [" b\u0085\n"]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("part", ["cut off", "changed"])
def test_archives_that_are_damaged(tmp_path: Path, suffix: str, part: str) -> None:
    lines = "".join(
        json.dumps({"source": str(i * 7919 % 1000), "target": "b"}) + "\n" for i in range(4000)
    )
    data = bytearray(compressor(suffix)(lines.encode()))
    if part == "cut off":
        del data[-9:]
    else:
        data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(data)
    with pytest.raises(BadFileError, match=f"a.jsonl{suffix}: "):
        list(examples(str(path), TRANSLATION))


def test_where_a_text_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"source": "a", "target": "b"}\n'
    path.write_bytes(BOM + good * 3000 + b'{"source": "caf\xe9"}\n' + good * 100)
    with pytest.raises(BadFileError, match=f"not UTF-8: .* at byte {3 + 3000 * len(good) + 15}$"):
        list(examples(str(path), TRANSLATION))


def test_folders_and_pipes_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="is a folder; name its files"):
        expand([str(tmp_path)])
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BadFileError, match='no regular file; "-" stands for standard input'):
            expand([str(tmp_path / "pipe")])


def test_plain_text_is_cut_at_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n\nthree\n", encoding="utf-8")
    assert [e.output for e in examples(str(path), TASKS["text"])] == ["one\ntwo\n", "three\n"]


def test_globs(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert [Path(p).name for p in expand([str(tmp_path / "*.txt")])] == ["a.txt", "b.txt"]
    with pytest.raises(BadFileError, match="no such file"):
        expand([str(tmp_path / "*.json")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"source": "a", "target": "b"}\n{"source"', "line 2: not JSON"),
        ("a.jsonl", b"[1]", "line 1: found list, expected an object"),
        ("a.jsonl", b'{"source": "a"}', "line 1: field 'target': missing"),
        ("a.jsonl", b'{"source": 1, "target": "b"}', "field 'source': of type int"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8"),
        ("a.json", b"{}", "expected a list"),
        ("a.json", b"[", "not JSON"),
        ("a.csv", b"source\nx\n", "line 2: field 'target': missing"),
        ("a.jsonl.gz", b"no gzip", "cannot be read"),
        ("a.jsonl.zst", b"no zstd", "cannot be read"),
        ("a.jsonl.bz2", b"no bzip2", "cannot be read"),
        ("a.jsonl.xz", b"no xz file", "cannot be read"),
        ("a.jsonl", '{"source": "a"}'.encode("utf-16"), "not UTF-8, but a text in UTF-16"),
        ("a.csv", b"\xfe\xff" + "a,b".encode("utf-16-be"), "not UTF-8, but a text in UTF-16"),
        ("a.txt", "text".encode("utf-32"), "not UTF-8, but a text in UTF-32"),
        ("a.json", "[1]".encode("utf-16-le"), "a text in UTF-16 without a byte order mark"),
        ("a.jsonl", b"PAR1....", "not UTF-8, but a Parquet file"),
        ("a.csv", b"PK\3\4....", "not UTF-8, but a ZIP archive or an office document"),
        ("a.txt.gz", gzip.compress(gzip.compress(b"x")), "not UTF-8, but a gzip archive"),
        ("a.jsonl", b'[\n{"source": "a"}]', "a list of objects is read from a file named .json"),
        ("a.json", b'{"source": "a", "target": "b"}\n{"s', "line 2: not JSON"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=message) as raised:
        list(examples(str(path), TRANSLATION))
    assert name in str(raised.value)


def test_bad_records_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"source": "a", "target": "b"}\nnone\n{"target": 1}\n', encoding="utf-8")
    skipped: list[BadRecord] = []
    assert len(list(examples(str(path), TRANSLATION, skipped=skipped.append))) == 1
    assert [str(s).split(": ")[1] for s in skipped] == ["line 2", "line 3"]


frequencies = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(frequencies, st.floats(0, 1), st.integers(1, 30))
def test_tolerance_drops_the_most_that_it_may(
    values: list[int], tolerance: float, n_documents: int
) -> None:
    frequency = np.array(values, dtype=np.int64)
    kept = keep_within(frequency, n_documents, tolerance)
    assert kept.tolist() == sorted(set(kept.tolist()))
    occurring = set(np.flatnonzero(frequency).tolist())
    dropped = occurring - set(kept.tolist())
    mass = int(frequency[list(dropped)].sum()) if dropped else 0
    assert mass <= tolerance * n_documents
    if kept.size:
        rarest = int(frequency[kept].min())
        assert mass + rarest > tolerance * n_documents
        assert all(frequency[d] <= rarest for d in dropped)


@given(frequencies, st.integers(0, 50))
def test_a_budget_of_rows_and_its_tolerance_agree(values: list[int], n_rows: int) -> None:
    frequency = np.array(values, dtype=np.int64)
    kept, tolerance = keep_rows(frequency, 1000, n_rows)
    assert kept.size == min(n_rows, int((frequency > 0).sum()))
    assert keep_within(frequency, 1000, tolerance).size <= kept.size or tolerance == 0


@pytest.mark.parametrize(
    ("piece", "scripts", "kept"),
    [
        (" città".encode(), ["latin"], True),
        ("дом".encode(), ["latin"], False),
        ("дом".encode(), ["latin", "cyrillic"], True),
        ("中文".encode(), ["han"], True),
        (b" 42, (x)", ["latin"], True),
        ("e\u0301".encode(), ["latin"], True),
        ("中".encode()[:2], ["latin"], False),  # a Chinese character, cut
        ("中".encode()[:2], ["han"], True),
        (b" \xc3", ["latin"], True),  # the begin of an accented letter
        (b"\xd0", ["latin"], False),  # of a Cyrillic one
        (b"\xa9", ["latin"], True),  # an end says nothing
        (b"", ["latin"], True),
        (b"\xff", ["latin"], True),
    ],
)
def test_scripts(piece: bytes, scripts: list[str], kept: bool) -> None:
    pytest.importorskip("regex")
    assert in_scripts([piece], script_pattern(scripts)).tolist() == [kept]


def test_classes_on_request() -> None:
    pytest.importorskip("regex")
    smile = "\U0001f600".encode()
    assert not in_scripts([smile], script_pattern(["latin"], ["digits"])).any()
    assert in_scripts([smile], script_pattern(["latin"], ["emoji"])).all()
    with pytest.raises(VocabTailorError, match="klingon"):
        script_pattern(["klingon"])
    with pytest.raises(VocabTailorError, match="noise"):
        script_pattern(["latin"], ["noise"])


def test_counting_by_hand(tiny_split: Callable[[str], Any]) -> None:
    corpus = [Example("ab", "abcd"), Example("", "ccc"), Example("xyz", "z")]
    with VocabStore(tiny_split("llama").vocab) as store:
        found = count(store, corpus, input_aware=True)
        tokenizer = load_tokenizer(store.path)
        expected = np.zeros(store.n_vocab, dtype=np.int64)
        for example in corpus:
            wanted = set(tokenizer.tokenize(example.output.encode(), add_bos=False))
            given_ = set(tokenizer.tokenize(example.prompt.encode(), add_bos=False))
            for token in wanted - (given_ if example.prompt else set()):
                expected[token] += 1
        tokenizer.close()
        assert np.array_equal(found.frequency, expected)
        assert (found.n_documents, found.n_bytes) == (3, 2 + 4 + 3 + 3 + 1)
        everything = count(store, corpus, input_aware=False)
        assert everything.frequency.sum() > found.frequency.sum()


def test_processes_parts_and_files_give_the_same_counts(
    tiny_split: Callable[[str], Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    words = ["alpha ", "beta ", "gamma ", "è ", "中 ", "zig "]
    corpus = [Example("", "".join(rng.choice(words, 4000))) for _ in range(40)]
    with VocabStore(tiny_split("qwen2").vocab) as store:
        alone = count(store, corpus, input_aware=True, n_processes=1)
        together = count(store, corpus, input_aware=True, n_processes=2)
        parts = [count(store, c, input_aware=True) for c in (corpus[:15], corpus[15:])]
        parts[0].save(tmp_path / "c.json")
        added = Counts.load(tmp_path / "c.json") + parts[1]
        for other in (together, added):
            assert np.array_equal(other.frequency, alone.frequency)
            assert other.n_documents == alone.n_documents
            assert other.n_tokens == alone.n_tokens
        with pytest.raises(MismatchError):
            alone + count(store, corpus[:1], input_aware=False)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"version": 2},
        {"ids": [5, 4]},
        {"ids": [-1, 4]},
        {"ids": [1, 10**9]},
        {"frequency": [1]},
        {"frequency": [0, 1]},
        {"n_documents": -1},
        {"n_vocab": "many"},
        {"ids": None},
    ],
    ids=str,
)
def test_bad_counts(tiny_split: Callable[[str], Any], tmp_path: Path, change: Any) -> None:
    path = tmp_path / "c.json"
    with VocabStore(tiny_split("llama").vocab) as store:
        count(store, [Example("", "abcdef xyz")], input_aware=True).save(path)
    data = json.loads(path.read_text())
    data |= {"ids": data["ids"][:2], "frequency": data["frequency"][:2], **change}
    path.write_text(json.dumps(data))
    with pytest.raises(BadFileError, match=r"c\.json"):
        Counts.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="has no signals")
def test_a_worker_that_crashes_is_told_in_words() -> None:
    expected = r"a process that tokenises was stopped by SIGSEGV \(a memory fault\)$"
    with (
        pytest.raises(VocabTailorError, match=expected),
        process_executor(2) as (executor, n),
    ):
        assert n == 2
        executor.submit(os.getpid).result()
        executor.submit(signal.raise_signal, signal.SIGSEGV).result()


def test_profile_corpus_end_to_end(tiny_split: Callable[[str], Any], tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", "jsonl")
    vocab = tiny_split("llama").vocab
    chosen = profile_corpus(vocab, path, input_field="source", output_field="target", tolerance=0)
    stages = chosen.provenance["stages"]
    assert stages["input_aware"] >= stages["less_always_on"] == stages["tolerance"] == len(chosen)
    assert chosen.provenance["documents"] == 2
    fewer = profile_corpus(vocab, path, input_field="source", output_field="target", rows=2)
    assert len(fewer) == 2
    assert set(fewer.ids) < set(chosen.ids)
    with VocabStore(vocab) as store:
        chosen.check(store)
    with pytest.raises(VocabTailorError, match="tolerance"):
        profile_corpus(vocab, path, input_field="source", output_field="target", tolerance=2)
    with pytest.raises(VocabTailorError, match="task"):
        profile_corpus(vocab, path, task="poetry")


def test_word_lists() -> None:
    pytest.importorskip("wordfreq")
    forms = dict(word_forms(["it"], 3))
    assert forms[" che"] > forms[" Che"] > forms["che"] > forms["Che"] > 0
    both = dict(word_forms(["it", "en"], 3))
    assert set(both) == set(forms) | set(dict(word_forms(["en"], 3)))
    assert both[" the"] > both[" The"]
    assert len(list(word_forms(["zh", "ja"], 5))) >= 20  # without a package that cuts words
    with pytest.raises(VocabTailorError, match="xx"):
        list(word_forms(["xx"], 3))


def test_set_algebra() -> None:
    a, b = TokenSet([1, 2, 3], "t"), TokenSet([3, 4])
    assert a.union(b).ids.tolist() == [1, 2, 3, 4]
    assert a.intersection(b).ids.tolist() == [3]
    assert a.difference(b).ids.tolist() == [1, 2]
    assert a.union(b).tokenizer == "t"
    with pytest.raises(MismatchError):
        a.union(TokenSet([1], "other"))
    with pytest.raises(TokenIdError, match="empty"):
        a.difference(a)


def test_commands(
    tiny_split: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "train.jsonl", "jsonl"), tmp_path / "it.tokens.json"
    asked = ["profile", "-m", str(tiny_split("llama").vocab), "--data", str(data)]
    asked += ["--task", "translation", "-o", str(out)]
    counts = str(tmp_path / "counts.json")
    several = ["--tolerance", "0", "0.5", "--save-counts", counts]
    assert main([*asked, *several]) == 0
    printed = capsys.readouterr()
    names = [Path(line).name for line in printed.out.splitlines()]
    assert names == ["it.0.tokens.json", "it.0.5.tokens.json"]
    assert "input_aware" in printed.err
    assert main([*asked, "--rows", "2", "--counts", counts, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["ids"] == 2
    assert found[0]["documents"] == 4  # of this run and of the saved one
    both = tmp_path / "both.json"
    sets = [str(tmp_path / n) for n in names]
    assert main(["set", "union", *sets, "-o", str(both)]) == 0
    assert len(TokenSet.load(both)) == len(TokenSet.load(sets[0]))
    assert main(["set", "show", str(both)]) == 0
    assert "ids" in capsys.readouterr().out
    assert main([*asked[:3], "--data", str(data), "--task", "extraction", "-o", str(out)]) == 1
    assert "no static set" in capsys.readouterr().err
