"""What joins the active set of exact mode while a text grows. Its tokens stay stock's."""

from __future__ import annotations

import contextlib
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from exactpair import COMMON, PROMPTS, SAMPLINGS, Pair, take
from nativecheck import build

from vocabtailor_gguf import TailoredLlama, TokenSet

N_VOCAB, N_HAN = 8192, 1000
HAN_MODEL = {"n_vocab": N_VOCAB, "n_han": N_HAN}
SOME = TokenSet(range(300, 800))
FEW_SHOTS = {
    "Chinese": ("海岸行的火车七点出发。", "我们不知道博物馆星期一关门。"),
    "Russian": (
        "Поезд на побережье отправляется в семь.",
        "Мы понятия не имели, что музей закрыт по понедельникам.",
    ),
    "Italian": (
        "Il treno per la costa parte alle sette.",
        "Non sapevamo che il museo fosse chiuso il lunedì.",
    ),
}
ALPHABETS = (
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "DEVANAGARI", "BENGALI",
    "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI",
    "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "HANGUL", "ETHIOPIC", "KHMER", "MONGOLIAN", "CJK",
)  # fmt: skip


def is_han(llm: TailoredLlama, token: int) -> bool:
    text = llm._engine.tokenizer.piece(token).decode("utf-8", "replace")
    return text[:1] >= "\u4e00" and "\ufffd" not in text


@pytest.fixture
def both(pair: Callable[..., Pair]) -> Pair:
    return pair("llama", HAN_MODEL, token_set=SOME)


@pytest.fixture
def han(both: Pair) -> set[int]:
    found = {t for t in range(N_VOCAB) if is_han(both.exact, t)}
    assert len(found) == N_HAN
    return found


def stream(llm: llama_cpp.Llama, prompt: list[int], **sampling: Any) -> Iterator[int]:
    llm.reset()
    llm.set_seed(1)
    return llm.generate(prompt, **sampling)


def test_scripts_are_those_of_unicode(tmp_path: Path) -> None:
    program = build("script_check", ["vocab/script_of.cpp"], tmp_path)
    letters: list[str] = []
    names: list[str] = []
    for c in map(chr, [*range(0x21, 0xD800), *range(0xF900, 0x10000), *range(0x20000, 0x20100)]):
        # what lies in the blocks of another script is of use to both
        name = unicodedata.name(c, "").replace("HALFWIDTH ", "").split(" ")[0]
        kana = name in ("HIRAGANA", "KATAKANA")
        if unicodedata.category(c)[0] == "L" and (name in ALPHABETS or kana):
            letters.append(c)
            names.append("KANA" if kana else name)
    answer = subprocess.run(
        [str(program)], input="\n".join(letters).encode(), capture_output=True, check=True
    )
    scripts: dict[str, set[int]] = {}
    for name, script in zip(names, answer.stdout.split(), strict=True):
        scripts.setdefault(name, set()).add(int(script))
    assert scripts.pop("LATIN") == {-1}
    for name, found in scripts.items():
        common = found - {-1}
        assert len(common) == 1, name
    assert len(set.union(*scripts.values()) - {-1}) == len(scripts)


@pytest.mark.parametrize(
    ("text", "like"),
    [
        (b"\xe4\xb8", "一"),  # the begin of a Han character
        (b"\xe5", "一"),
        (b"\xd0", "я"),
        (b"\xb8\xd0\xbf", "я"),  # the end of some character before it
        (b" \xe0\xa4", "क"),
        (b"\xe3", "a"),  # Han, kana or others
        (b"\xff\xfe\xc0", "a"),
        (b"1, a", "a"),
        ("a я".encode(), "я"),
    ],
)
def test_scripts_of_pieces(tmp_path: Path, text: bytes, like: str) -> None:
    program = build("script_check", ["vocab/script_of.cpp"], tmp_path)
    answer = subprocess.run(
        [str(program)], input=text + b"\n" + like.encode(), capture_output=True, check=True
    )
    found, expected = answer.stdout.split()
    assert found == expected


def test_a_rejected_draft_brings_its_script(both: Pair, han: set[int]) -> None:
    seen = 0
    for first in range(300, 340):
        prompt = [5, first, 301]
        expected = take(both.stock, prompt, 12, temp=0.0)
        out = stream(both.exact, prompt, temp=0.0)
        found = [next(out)]
        if found[0] in han:  # the static rows have none, and nothing has joined before
            seen += 1
            assert han <= set(both.exact.active_ids.tolist())
        found += [next(out) for _ in range(11)]
        out.close()
        assert found == expected
        assert han.isdisjoint(both.exact.active_ids.tolist())
    assert seen > 0


def test_a_text_brings_its_script(both: Pair, han: set[int]) -> None:
    ids = sorted(han)
    prompt = [5, *ids[::200], 400]
    out = stream(both.exact, prompt, temp=0.0)
    found = [next(out)]
    rows = both.exact.active_ids.tolist()
    assert han <= set(rows)
    n_static = len(set(rows) & {*both.exact._engine.static_ids(SOME).tolist()})
    assert rows[n_static : n_static + len(prompt) - 2] == prompt[1:-1]  # 5 and 400 are static
    found += [next(out) for _ in range(19)]
    out.close()
    assert found == take(both.stock, prompt, 20, temp=0.0)
    # one character among many others is no text of that script
    out = stream(both.exact, [5, ids[0], *range(300, 340)], temp=0.0)
    given = [next(out)]
    assert han <= set(both.exact.active_ids.tolist()) or given[0] not in han
    out.close()


@pytest.mark.parametrize("sampling", ["greedy", "hot", "min-p", "penalties", "greedy, penalties"])
def test_texts_are_stocks(both: Pair, han: set[int], sampling: str) -> None:
    ids = sorted(han)
    for prompt in ([5, *ids[:40]], [5, *ids[500:505], 400], *PROMPTS):
        asked = SAMPLINGS[sampling]
        assert take(both.exact, prompt, 100, **asked) == take(both.stock, prompt, 100, **asked)


def test_a_set_that_knows_the_script_stands_for_itself(tiny_split: Any) -> None:
    core = tiny_split("llama", **HAN_MODEL).core
    with contextlib.closing(TailoredLlama(core, **COMMON)) as llm:
        han = sorted(t for t in range(N_VOCAB) if is_han(llm, t))
        prompt = [5, *han[:80]]
        for chosen, joins in ((TokenSet(han[:80]), False), (TokenSet(han[200:]), True)):
            llm.set_token_set(chosen)
            llm.eval(prompt)
            llm._session.verifier.begin(llm._init_sampler(temp=0.0).sampler)
            assert (set(han) <= set(llm.active_ids.tolist())) == joins
            llm._session.verifier.end()
            llm.reset()
            assert set(llm.active_ids.tolist()) & set(han) == set(chosen.ids.tolist())


def test_tailored_mode_keeps_its_set(tiny_split: Any) -> None:
    core = tiny_split("llama", **HAN_MODEL).core
    with contextlib.closing(TailoredLlama(core, mode="tailored", token_set=SOME, **COMMON)) as llm:
        han = sorted(t for t in range(N_VOCAB) if is_han(llm, t))
        prompt = [5, *han[:20]]
        rows = {*llm.active_ids.tolist(), *prompt, *llm._session.forms.find(prompt).tolist()}
        out = stream(llm, prompt, temp=0.0)
        for _ in range(20):
            assert next(out) in rows
        assert set(llm.active_ids.tolist()) == rows
        out.close()


def test_what_came_near_joins(both: Pair) -> None:
    llm = both.exact
    out = stream(llm, PROMPTS[0], temp=0.0)
    first = {*llm.active_ids.tolist(), next(out)}
    rows = set(llm.active_ids.tolist())
    text = [next(out) for _ in range(40)]
    joined = set(llm.active_ids.tolist()) - first - set(text)
    assert joined and rows <= set(llm.active_ids.tolist())
    assert len(llm.active_ids) <= N_VOCAB // 4 + 16 * 32  # a block may go a little beyond
    out.close()


def test_what_joined_and_was_wanted_is_learned(tiny_split: Any) -> None:
    core = tiny_split("llama", **HAN_MODEL).core
    with contextlib.closing(TailoredLlama(core, token_set=SOME, **COMMON)) as llm:
        han = sorted(t for t in range(N_VOCAB) if is_han(llm, t))
        prompt = [5, *han[:20]]
        static = set(llm.active_ids.tolist())
        text = take(llm, prompt, 60, temp=0.0)
        forms = set(llm._session.forms.find(prompt).tolist())
        learned = set(llm.learned_token_set().ids.tolist()) - set(SOME.ids.tolist())
        assert learned == set(text) - static - set(prompt) - forms
        assert learned & set(han)


def test_no_drafts_no_growth(tiny_split: Any) -> None:
    core = tiny_split("llama", **HAN_MODEL).core
    with contextlib.closing(TailoredLlama(core, token_set=SOME, drafts="none", **COMMON)) as llm:
        han = sorted(t for t in range(N_VOCAB) if is_han(llm, t))
        out = stream(llm, [5, *han[:20]], temp=0.0)
        text = [next(out) for _ in range(20)]
        rows = set(llm.active_ids.tolist()) & set(han)
        assert rows <= {*han[:20], *text}
        out.close()


@pytest.mark.model
@pytest.mark.parametrize(
    "sampling", [{"temp": 0.0}, {"temp": 0.8, "top_k": 40}], ids=["greedy", "drawn"]
)
@pytest.mark.parametrize("name", ["gemma", "smollm2"])
def test_real_models(name: str, sampling: dict[str, Any], request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    core = request.getfixturevalue(f"{name}_split").core
    options: dict[str, Any] = {"n_ctx": 512, "n_threads": 2, "n_threads_batch": 2, "verbose": False}
    with (
        contextlib.closing(llama_cpp.Llama(str(model), **options)) as stock,
        contextlib.closing(TailoredLlama(core, **options)) as exact,
    ):
        for language, (one, two) in FEW_SHOTS.items():
            text = (
                f"English: The train to the coast leaves at seven.\n{language}: {one}\n\n"
                f"English: We did not know that the museum was closed on Mondays.\n{language}: "
                f"{two}\n\nEnglish: The old bridge will be closed for two months.\n{language}:"
            )
            prompt = stock.tokenize(text.encode())
            expected = take(stock, prompt, 32, **sampling)
            out = stream(exact, prompt, **sampling)
            found = [next(out)]
            rows = exact.active_ids
            found += [next(out) for _ in range(31)]
            out.close()
            assert found == expected
            if language != "Italian":
                letters = {"Chinese": "的是在有人", "Russian": "авистн"}[language]
                wanted = [exact.tokenize(c.encode(), add_bos=False)[-1] for c in letters]
                assert np.isin(wanted, rows).all()
