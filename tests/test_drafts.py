"""Drafts from the text: passes of several tokens have the bits of single ones."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import SAMPLINGS, Pair, take
from nativecheck import ROOT, build, need

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.errors import VocabTailorError

LONG = {"n_vocab": 2048}
REPEATING = [5, *([300, 301, 302, 303, 304, 305] * 5), 400, 300, 301]
# flash attention cuts a memory of so many cells into parts
FAR = [*range(300, 580), *range(300, 330)]
# tokens of the text are the likelier ones, so that it repeats itself, and not always
AGAIN = {"temp": 0.0, "presence_penalty": -2.0, "frequency_penalty": -0.5}


@pytest.fixture
def opened(pair: Callable[..., Pair]) -> Iterator[Callable[..., TailoredLlama]]:
    """Returns a function that opens the split of a tiny model again, with other arguments."""
    made: list[TailoredLlama] = []

    def get(core: str, **options: Any) -> TailoredLlama:
        made.append(
            TailoredLlama(core, **{"n_ctx": 1024, "n_threads": 1, "verbose": False, **options})
        )
        return made[-1]

    yield get
    for llm in made:
        llm.close()


@pytest.mark.parametrize("check", ["text_index", "pass_length"])
def test_native(tmp_path: Path, check: str) -> None:
    program = build(f"{check}_check", [f"decode/{check}.cpp"], tmp_path)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2", "falcon", "gemma4", "phi3"])
def test_hidden_states(
    tiny_split: Any, opened: Any, name: str, flash_attn: bool, n_threads: int
) -> None:
    options = {"n_threads": n_threads, "n_threads_batch": n_threads, "flash_attn": flash_attn}
    llm = opened(tiny_split(name, **LONG).core, mode="full", **options)
    native: NativeSession = llm._session.native
    most = native.probe(8)
    assert most > 1
    ids = np.random.default_rng(2).integers(300, 2000, size=900, dtype=np.int32)
    for before in (1, 130, 247, 300, 513, 760):
        native.decode(ids[:before], pos=0)
        alone = []
        for i in range(before, before + most):
            native.decode(ids[i : i + 1], pos=i)
            alone.append(native.hidden()[-1])
        for n in range(1, most + 1):
            native.decode_together(ids[before : before + n], pos=before)
            assert np.array_equal(native.hidden(), alone[:n])
            assert native.groups() == (1,) * n


def test_a_pass_ends_where_the_memory_grows(tiny_split: Any, opened: Any) -> None:
    native: NativeSession = opened(tiny_split("llama", **LONG).core, mode="full")._session.native
    ids = np.arange(300, 600, dtype=np.int32)
    native.decode(ids[:254], pos=0)
    with pytest.raises(
        VocabTailorError, match="3 tokens at once from position 254, expected up to 2"
    ):
        native.decode_together(ids[254:257], pos=254)
    assert native.n_past == 254
    native.decode_together(ids[254:256], pos=254)
    with pytest.raises(VocabTailorError, match="no text"):
        native.probe(8)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_every_sampler(pair: Callable[..., Pair], name: str, sampling: str) -> None:
    both = pair(name, LONG)
    for seed in range(2):
        asked = {**SAMPLINGS[sampling], "seed": seed}
        assert take(both.exact, REPEATING, 150, **asked) == take(
            both.stock, REPEATING, 150, **asked
        )
    stats = both.exact.stats
    assert stats.together > 1


def test_tokens_forced_between(pair: Callable[..., Pair]) -> None:
    both = pair("llama", LONG)
    for seed in range(20):  # what a pass takes along depends on what passes cost just now
        found = []
        for llm in (both.stock, both.exact):
            llm.reset()
            llm.eval([*REPEATING, 302 + seed])
            llm._sampler = llm._init_sampler(**AGAIN)
            tokens = []
            for i in range(150):
                tokens.append(llm.sample())
                llm.eval([302 + i % 3] if i % 11 == 5 else tokens[-1:])
            llm._sampler = None
            found.append(tokens)
        assert found[0] == found[1]
        stats = both.exact.stats
        if 0 < stats.agreed < stats.ahead:
            break
    assert 0 < stats.agreed < stats.ahead  # some right, some not


@pytest.mark.parametrize(
    "options", [{"flash_attn": True}, {"n_threads": 2, "flash_attn": True}, {}]
)
def test_long_texts(pair: Callable[..., Pair], options: dict[str, Any]) -> None:
    both = pair("qwen2", LONG, n_ctx=1024, **options)
    for asked in (AGAIN, SAMPLINGS["greedy"], SAMPLINGS["default"]):
        assert take(both.exact, FAR, 300, **asked) == take(both.stock, FAR, 300, **asked)
    assert both.exact.stats.agreed > 0


def test_interrupted_anywhere(pair: Callable[..., Pair]) -> None:
    """Text, logits and what follows are as if nothing had been decoded ahead."""
    both = pair("llama", LONG)
    for n in range(1, 40, 2):
        streams = [llm.generate(REPEATING, **AGAIN) for llm in (both.stock, both.exact)]
        for _ in range(n):
            assert next(streams[0]) == next(streams[1])
        found, logits = both.exact.last_logits()
        raw = both.stock._ctx.get_logits_ith(-1)
        assert np.array_equal(logits, np.ctypeslib.as_array(raw, shape=(2048,))[found])
        for stream in streams:
            stream.close()
        text = [*both.stock._input_ids.tolist(), 11]
        assert both.exact._input_ids.tolist() == text[:-1]
        go_on = [llm.generate(text, **AGAIN) for llm in (both.stock, both.exact)]
        for _ in range(8):
            assert next(go_on[0]) == next(go_on[1])
        for stream in go_on:
            stream.close()
        both.stock.reset()
        both.exact.reset()
    assert both.exact.stats.agreed > 0


def test_settings(
    tiny_split: Any, tiny: Any, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    core = tiny_split("llama", **LONG).core
    stock = llama_cpp.Llama(str(tiny("llama", **LONG)), n_ctx=1024, n_threads=1, verbose=False)
    expected = take(stock, REPEATING, 100, **AGAIN)
    stock.close()
    for drafts in ("auto", "text", "active", "none"):
        llm = opened(core, drafts=drafts)
        assert take(llm, REPEATING, 100, **AGAIN) == expected
        assert (llm.stats.ahead > 0) == (llm.stats.together > 1) == (drafts in ("auto", "text"))
        assert (llm.stats.drafted > 0) == (drafts != "none")
    with pytest.raises(ValueError, match="drafts: found 'yes', expected one of auto, active"):
        opened(core, drafts="yes")
    state = opened(tiny_split("mamba", **LONG).core, drafts="auto")
    assert state.stats.together == 1
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        opened(tiny_split("mamba", **LONG).core, drafts="text")
    assert "nothing from the text: the memory of this model cannot" in caplog.text


def test_what_was_tried_is_kept(
    tiny_split: Any, opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = tiny_split("llama", **LONG).core
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "together.json"
    found = opened(core).stats.together
    assert list(json.loads(kept.read_text()).values()) == [found]

    def never(self: NativeSession, most: int) -> int:
        pytest.fail("tried again")

    with monkeypatch.context() as patch:
        patch.setattr(NativeSession, "probe", never)
        assert opened(core).stats.together == found
    assert opened(core, flash_attn=True).stats.together == found  # another context is another try
    assert len(json.loads(kept.read_text())) == 2
    for base in (5000.0, 6000.0):  # so is another model, and what a user makes of it
        opened(core, kv_overrides={"llama.rope.freq_base": base})
    opened(core, kv_overrides={"tokenizer.ggml.add_bos_token": False})  # not of the core
    assert len(json.loads(kept.read_text())) == 4
    for broken in ("", "[]", '{"a": 1', "\xff"):
        kept.write_text(broken, encoding="latin-1")
        assert opened(core).stats.together == found
    kept.unlink()
    kept.mkdir()  # nothing can be kept here
    assert opened(core).stats.together == found


@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library")
def test_what_a_kernel_refuses_is_tried_anew(tiny_split: Any, tmp_path: Path) -> None:
    core = tiny_split("llama", **LONG).core
    library = tmp_path / "without_amx.so"
    need("cc")
    source = str(ROOT / "tests" / "native" / "without_amx.c")
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, source, "-o", str(library), "-ldl"], check=True)
    env = {**os.environ, "VOCABTAILOR_CACHE": str(tmp_path / "cache")}
    program = """
import sys
from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.binding.types import parse_type, weight_buffer
TailoredLlama(sys.argv[1], n_ctx=512, n_threads=1, verbose=False).close()
print(weight_buffer(parse_type("Q8_0"), 512, 512))
"""
    buffers = []
    for preload in ({}, {"LD_PRELOAD": str(library)}):
        asked = [sys.executable, "-c", program, str(core)]
        done = subprocess.run(asked, env={**env, **preload}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        buffers.append(done.stdout.strip())
    assert buffers[1] != "AMX"
    kept = json.loads((tmp_path / "cache" / "together.json").read_text())
    assert len(kept) == len(set(buffers))


@pytest.mark.parametrize("model", ["gemma", "smollm2"])
def test_a_real_model_copies(request: pytest.FixtureRequest, model: str, opened: Any) -> None:
    text = " ".join(
        f"Item {i}: the river {name} has {i * 37} km and flows into the sea near {name}ville."
        for i, name in enumerate(["Arno", "Tiber", "Piave", "Adige", "Tagliamento", "Brenta"])
    )
    prompt = f"{text}\n\nThe same text again:\n\nItem 0: the river"
    options = {"n_ctx": 1024, "n_threads": 2, "n_threads_batch": 2, "seed": 3}
    stock = llama_cpp.Llama(str(request.getfixturevalue(model)), verbose=False, **options)
    llm = opened(request.getfixturevalue(f"{model}_split").core, **options)
    for asked in ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 20}):
        texts = [m.create_completion(prompt, max_tokens=80, **asked) for m in (stock, llm)]
        assert texts[0]["choices"] == texts[1]["choices"]
    stock.close()
    assert llm.stats.together == 1 or llm.stats.agreed > 0


def _schema(**kinds: str) -> dict[str, Any]:
    properties = {name: {"type": kind} for name, kind in kinds.items()}
    return {"type": "object", "properties": properties, "required": list(kinds)}


# rows that a grammar brings in the middle of a block must not hide what it is verified for
SCHEMAS = {
    "Marie Curie, a Polish physicist, born in 1867.": _schema(
        name="string", birth_year="integer", nationality="string"
    ),
    "Order: 2 apples at 0.5, 3 loaves of bread at 2.25, one bottle of milk at 1.1.": {
        **{"type": "array", "minItems": 3, "maxItems": 3},
        "items": _schema(product="string", price="number", quantity="integer"),
    },
}


@pytest.mark.parametrize("model", ["gemma", "smollm2"])
def test_what_a_grammar_forces(request: pytest.FixtureRequest, model: str, opened: Any) -> None:
    options = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "seed": 3}
    stock = llama_cpp.Llama(str(request.getfixturevalue(model)), verbose=False, **options)
    llm = opened(request.getfixturevalue(f"{model}_split").core, **options)
    for text, schema in SCHEMAS.items():
        grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
        prompt = stock.tokenize(f"{text} As JSON:\n".encode())
        for temp in (0.0, 0.8) if schema["type"] == "object" else (0.0,):
            asked = {"temp": temp, "top_k": 40, "grammar": grammar}
            assert take(llm, prompt, 48, **asked) == take(stock, prompt, 48, **asked)
    stock.close()
    assert llm.stats.together == 1 or llm.stats.agreed > 0


def test_longer_passes(tiny_split: Any, opened: Any) -> None:
    core = tiny_split("llama", **LONG).core
    for most in (1, 3, 16):
        llm = opened(core, draft_max=most)
        take(llm, REPEATING, 60, **AGAIN)
        assert llm.stats.together == most
        assert llm.stats.why_alone == ("draft_max is 1" if most == 1 else "")
        assert (llm.stats.ahead > 0) == (most > 1)
    for most in (0, 17, -1):
        with pytest.raises(ValueError, match=f"draft_max: found {most}, expected 1 to 16"):
            opened(core, draft_max=most)
