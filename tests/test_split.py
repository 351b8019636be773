from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest
from conftest import TinyModel, TinySplit, everything_in
from gguf import GGUFReader
from llama_cpp import _internals as internals
from tinymodels import ARCHITECTURES

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import (
    VocabTailorError,
)
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.split import plan as _plan
from vocabtailor_gguf.split import proof as _proof
from vocabtailor_gguf.split.architectures import VocabularyMath
from vocabtailor_gguf.split.merge import merge_model
from vocabtailor_gguf.split.split import SplitFiles, split_model

EMBEDDING, HEAD, BIAS = "token_embd.weight", "output.weight", "output.bias"
PER_LAYER = "per_layer_token_embd.weight"
TABLES = (EMBEDDING, HEAD, BIAS, PER_LAYER)
STUB_ROWS = 32


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensor_bytes(path: Path) -> dict[str, bytes]:
    return {t.name: t.data.tobytes() for t in GGUFReader(path).tensors}


# ---- every architecture ----


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_split_and_merge(name: str, tiny: TinyModel, tiny_split: TinySplit, tmp_path: Path) -> None:
    source, files = tiny(name), tiny_split(name)
    assert files.core.name == f"{name}.core.gguf"
    assert files.vocab.name == f"{name}.vocab.gguf"
    assert files.proof.reference == "source"
    assert files.proof.n_tokens >= 40
    assert files.proof.n_hidden >= 8
    assert files.proof.n_logits >= 1000
    merged = merge_model(files.core, files.vocab, tmp_path / "merged.gguf")
    assert merged.identical
    assert merged.sha256 == sha256(source)
    assert merged.path.read_bytes() == source.read_bytes()
    assert everything_in(tmp_path) == ["merged.gguf"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_contract_of_the_files(name: str, tiny: TinyModel, tiny_split: TinySplit) -> None:
    source, files = GGUFHeader(tiny(name)), tiny_split(name)
    core, vocab = GGUFHeader(files.core), GGUFHeader(files.vocab)
    arch = source.get("general.architecture")
    n_vocab = source.keys["tokenizer.ggml.tokens"].n
    n_embd = source.tensors[EMBEDDING].ne[0]

    # the core: the source's keys but for the tokenizer, and its tensors but for all rows above 32
    assert [k for k in core.keys if k.startswith("tokenizer.")] == ["tokenizer.ggml.model"]
    assert core.get("tokenizer.ggml.model") == "no_vocab"
    assert core.get(f"{arch}.vocab_size") == STUB_ROWS
    changed = {"tokenizer.ggml.model", f"{arch}.vocab_size"}
    kept = [k for k in source.keys if not k.startswith("tokenizer.") and k not in changed]
    assert all(core.keys[k].record == source.keys[k].record for k in kept)
    assert list(core.tensors) == list(source.tensors)
    before, after = tensor_bytes(source.path), tensor_bytes(core.path)
    for t in source.tensors:
        assert before[t].startswith(after[t])
        assert core.tensors[t].type == source.tensors[t].type
        if t in TABLES:
            assert core.tensors[t].ne == (*source.tensors[t].ne[:-1], STUB_ROWS)
        else:
            assert after[t] == before[t]

    # the store: the tokenizer and the whole vocabulary tensors
    mine = [k for k in source.keys if k.startswith(("general.", "tokenizer."))]
    assert all(vocab.keys[k].record == source.keys[k].record for k in mine)
    tables = [t for t in source.tensors if t in TABLES]
    assert list(vocab.tensors) == tables
    stored = tensor_bytes(vocab.path)
    assert stored == {t: before[t] for t in tables}

    # keys of our own
    tied = HEAD not in source.tensors
    source_sha = sha256(source.path)
    for header, kind in ((core, "core"), (vocab, "vocab")):
        found = {k.removeprefix("vocabtailor."): header.get(k) for k in header.keys}
        expected = {
            "format_version": 1,
            "kind": kind,
            "n_vocab": n_vocab,
            "n_embd": n_embd,
            "tied": tied,
            "stub_rows": STUB_ROWS,
            "source.sha256": source_sha,
        }
        assert {k: found[k] for k in expected} == expected
        assert header.get("vocabtailor.pair_id") == core.get("vocabtailor.pair_id")
    names = {EMBEDDING: "token_embd", HEAD: "output", BIAS: "output_bias"}
    names[PER_LAYER] = "per_layer_token_embd"
    for t in tables:
        digest = hashlib.sha256(stored[t]).hexdigest()
        assert vocab.get(f"vocabtailor.{names[t]}.sha256") == digest
    with VocabStore(files.vocab) as store:
        assert (store.n_vocab, store.n_embd, store.tied) == (n_vocab, n_embd, tied)
        assert store.architecture == arch
        assert store.source_sha256 == source_sha
        assert store.pair_id == core.get("vocabtailor.pair_id")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_unmodified_llama_cpp_loads_both(name: str, tiny: TinyModel, tiny_split: TinySplit) -> None:
    files = tiny_split(name)
    core = internals.LlamaModel(
        path_model=str(files.core),
        params=llama_cpp.llama_model_default_params(),
        verbose=False,
    )
    assert core.n_vocab() == STUB_ROWS
    core.close()
    text = "Hello, caf\u00e9 of 42 \u65e5\u672c!".encode()
    tokens = []
    for path in (tiny(name), files.vocab):
        llm = llama_cpp.Llama(str(path), vocab_only=True, n_ctx=8, n_batch=8, verbose=False)
        tokens.append((llm.n_vocab(), llm.tokenize(text), llm.token_bos(), llm.token_eos()))
        llm.close()
    assert tokens[0] == tokens[1]


@pytest.mark.model
@pytest.mark.parametrize("name", ["gemma", "smollm2"])
def test_real_models(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(name)
    files: SplitFiles = request.getfixturevalue(f"{name}_split")
    assert files.proof.reference == "source"
    merged = merge_model(files.core, None, tmp_path / "merged.gguf")
    assert merged.identical
    assert merged.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    merged.path.unlink()


# ---- the proof ----


@pytest.mark.parametrize(
    ("name", "math", "text"),
    [
        ("gemma2", VocabularyMath(logit_softcap=0.0), "logit after token 0"),
        ("gemma2", VocabularyMath(logit_softcap=31.0), "logit after token 0"),
        ("granite", VocabularyMath(logit_scale=1.0), "logit after token 0"),
        ("granite", VocabularyMath(logit_scale=1.7), "logit after token 0"),
        ("command-r", VocabularyMath(logit_scale=4.0), "logit after token 0"),
    ],
)
def test_a_proof_that_fails_leaves_nothing(
    name: str,
    math: VocabularyMath,
    text: str,
    tiny: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_plan, "vocabulary_math", lambda *_: math)
    with pytest.raises(VocabTailorError, match=rf"{text} .*expected .* differ\)"):
        split_model(tiny(name), tmp_path)
    assert everything_in(tmp_path) == []


_CRASHING = """
import os, signal, sys
from pathlib import Path
from vocabtailor_gguf.split import proof

real = proof._Run

def run(path, store, ids):
    # what llama.cpp does to a process when a model is more than it can bear
    if {when!r} == ("stock" if store is None else "split"):
        print("a last line", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    return real(path, store, ids)

proof._Run = run
if {when!r} == "vocabulary":
    proof.sample_tokens = lambda store: os.abort()
proof._main(*sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no signals")
@pytest.mark.parametrize(
    ("when", "options", "text"),
    [
        (
            "stock",
            {},
            "llama.cpp itself cannot run this model on this machine: it was stopped by SIGSEGV "
            '(a memory fault); the end of its log: a last line; "vocabtailor doctor" tells more',
        ),
        (
            "split",
            {},
            "llama.cpp runs this model, but the split model stopped it: it was stopped by SIGSEGV "
            '(a memory fault); the end of its log: a last line; "vocabtailor doctor" tells more',
        ),
        (
            "vocabulary",
            {},
            "llama.cpp itself cannot load this model's vocabulary on this machine: it was stopped "
            "by SIGABRT (a failed check inside llama.cpp)",
        ),
        (
            "stock",
            {"output_tensor_type": "Q5_0"},
            "with the new tensor types: llama.cpp itself cannot run this model on this machine",
        ),
    ],
    ids=["stock", "split", "vocabulary", "merged"],
)
def test_a_crash_names_its_culprit(
    when: str,
    options: dict[str, str],
    text: str,
    tiny: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "crashing_proof.py").write_text(_CRASHING.format(when=when))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_proof, "_CHILD", "crashing_proof")
    out = tmp_path / "out"
    with pytest.raises(VocabTailorError) as e:
        split_model(tiny("llama"), out, **options)
    assert str(e.value).startswith(f"{tiny('llama')}: {text}")
    assert everything_in(out) == []


# ---- memory ----

_CHILD = """
import resource, sys
from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.split.split import split_model

split_model(*sys.argv[1:])
# the kernel's own counter would start from what the parent of this process had in use
peak = process_memory().peak
if not peak:
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(peak)
"""


@pytest.mark.model
@pytest.mark.skipif(sys.platform == "win32", reason="has no resource module")
@pytest.mark.parametrize("types", [[], ["q4_0", "q5_0"]])
def test_memory_of_a_split(types: list[str], gemma: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHILD, str(gemma), str(tmp_path), *types]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert 1 << 20 < int(done.stdout) < 200 << 20
    shutil.rmtree(tmp_path)
