"""Exact mode with chains that begin with top-p: stock's tokens, most without all logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from exactpair import PROMPTS, Pair, take
from headbench import TABLES
from test_exact import repeat_rows
from test_exact_chains import N_VOCAB, SOME, Make, bias, dist, give_chain, greedy, made, penalties

from vocabtailor_gguf import TokenSet, split_model

cold = made("temp", 0.6)
hot = made("temp", 1.4)
sharp = bias(*((t, 9.0) for t in range(0, N_VOCAB, 40)))  # tiny models are flat

CHAINS: dict[str, list[Make]] = {
    "top-p 0.5": [made("top_p", 0.5, 1), dist],
    "top-p 0.8, cold": [made("top_p", 0.8, 1), cold, dist],
    "top-p 0.95, cold": [made("top_p", 0.95, 1), cold, dist],
    "top-p 0.99, hot": [made("top_p", 0.99, 1), hot, dist],
    "top-p 0.9, greedy": [made("top_p", 0.9, 1), greedy],
    "top-p 0, min-keep": [made("top_p", 0.0, 5), dist],
    "top-p 0.05, min-keep": [made("top_p", 0.05, 40), cold, dist],
    "min-p after it": [made("top_p", 0.95, 1), made("min_p", 0.2, 1), cold, dist],
    "min-p after it, min-keep": [made("top_p", 0.7, 3), made("min_p", 0.5, 20), dist],
    "min-p later": [made("top_p", 0.95, 1), hot, made("min_p", 0.2, 1), dist],
    "top-k after it": [made("top_p", 0.8, 1), made("top_k", 5), dist],
    "typical after it": [made("top_p", 0.8, 1), made("typical", 0.6, 1), dist],
    "xtc after it": [made("top_p", 0.8, 1), made("xtc", 0.5, 0.01, 1, 9), dist],
    "twice": [made("top_p", 0.9, 1), made("top_p", 0.7, 1), dist],
    "mirostat after it": [made("top_p", 0.8, 1), made("mirostat_v2", 3, 5.0, 0.1)],
    "penalties": [penalties(64, 1.3, 0.4, 0.2), made("top_p", 0.9, 1), cold, dist],
    "rewards": [penalties(64, 0.6, -1.5, -0.5), made("top_p", 0.9, 1), cold, dist],
    "few are likely": [sharp, made("top_p", 0.9, 1), cold, dist],
    "one is likely": [bias((5500, 14.0), (700, 8.0)), made("top_p", 0.9, 1), dist],
    "many are ruled out": [
        bias(*((t, -1e9) for t in range(1, N_VOCAB, 3))),
        made("top_p", 0.8, 1),
        dist,
    ],
    "bias listed twice": [bias((5500, 4.0), (5500, 4.0), (3, -2.0)), made("top_p", 0.5, 1), dist],
    "bias after it": [made("top_p", 0.8, 1), bias((5500, 9.0), (700, 8.0)), dist],
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains(pair: Callable[..., Pair], name: str) -> None:
    both = pair("llama", {"n_vocab": N_VOCAB}, token_set=SOME)
    for seed, prompt in enumerate([*PROMPTS, *PROMPTS]):
        *makers, last = CHAINS[name]
        makers = [*makers, made("dist", seed) if last is dist else last]
        tokens = []
        for llm in (both.stock, both.exact):
            give_chain(llm, makers)
            tokens.append(take(llm, prompt, 60))
        assert tokens[0] == tokens[1]


@pytest.mark.parametrize("table", [t for t in TABLES if "517" not in t])
def test_every_kind_of_head(pair: Callable[..., Pair], table: str) -> None:
    name, options = TABLES[table]
    n_vocab = options.get("n_vocab", 480) + 1600
    both = pair(name, {**options, "n_vocab": n_vocab})
    asked: dict[str, Any] = {"temp": 0.7, "top_k": 0, "top_p": 0.8, "min_p": 0.0}
    for seed in range(3):
        expected = take(both.stock, PROMPTS[0], 40, **asked, seed=seed)
        assert take(both.exact, PROMPTS[0], 40, **asked, seed=seed) == expected


@pytest.mark.parametrize("place", ["memory", "mapped", "streamed"])
def test_few_decisions_need_all_logits(pair: Callable[..., Pair], place: str) -> None:
    name, options = TABLES["Q8_0"]
    both = pair(name, {**options, "n_vocab": 20000}, whole_head=place)
    verifier = both.exact._session.verifier
    for seed, top_p in enumerate((0.5, 0.8, 0.95)):
        asked: dict[str, Any] = {"temp": 0.7, "top_k": 0, "top_p": top_p, "min_p": 0.05}
        expected = take(both.stock, PROMPTS[0], 40, **asked, seed=seed)
        assert take(both.exact, PROMPTS[0], 40, **asked, seed=seed) == expected
    stats = verifier.stats()
    assert stats.n_whole < stats.n_tokens / 2
    assert stats.n_drafted > 0


@pytest.mark.parametrize("every", [3000, 37])
def test_ties(tiny: Any, tmp_path: Path, every: int) -> None:
    path = repeat_rows(tiny("llama", n_vocab=6000), tmp_path / "m.gguf", "output.weight", every)
    both = Pair(
        path, split_model(path, tmp_path).core, token_set=TokenSet(range(0, 6000, 2)), n_ctx=128
    )
    for seed in range(6):
        for p in (0.5, 0.9):
            tokens = []
            for llm in (both.stock, both.exact):
                give_chain(llm, [made("top_p", p, 1), hot, made("dist", seed)])
                tokens.append(take(llm, PROMPTS[0], 30))
            assert tokens[0] == tokens[1]
    both.close()


def test_a_grammar_before_it(pair: Callable[..., Pair]) -> None:
    both = pair("llama", {"n_vocab": 2048})
    texts = []
    for llm in (both.stock, both.exact):
        grammar = llama_cpp.LlamaGrammar.from_string('root ::= ("a" | [b-t] | " ")*', verbose=False)
        asked: dict[str, Any] = {"max_tokens": 60, "top_k": 0, "top_p": 0.8, "min_p": 0.0}
        answer = llm.create_completion("the", grammar=grammar, seed=4, **asked)
        texts.append(answer["choices"][0]["text"])
    assert texts[0] == texts[1]


def test_audits(tiny_split: Any) -> None:
    from vocabtailor_gguf import TailoredLlama

    files = tiny_split("llama", n_vocab=N_VOCAB)
    llm: Any = TailoredLlama(
        files.core, mode="tailored", token_set=SOME, audit=1.0, n_ctx=256, verbose=False
    )
    give_chain(llm, [bias((5500, 3.0), (4000, -3.0)), made("top_p", 0.8, 1), dist])
    assert len(take(llm, PROMPTS[0], 60)) == 60
    llm.close()
