"""Exact mode under grammars, which are asked about few tokens: stock's tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import llama_cpp
import pytest
from exactpair import PROMPTS, Pair, take

from vocabtailor_gguf import TailoredLlama, TokenSet
from vocabtailor_gguf.runtime.backend import names_no_token

N_VOCAB = 6000
SOME = TokenSet(range(900))
GRAMMARS = {
    "most tokens": "root ::= [^qxz]*",
    "a part": "root ::= [a-d ]*",
    "a letter": 'root ::= "e"*',
    "anything": "root ::= .*",
    "few, then many": 'root ::= ("name" [ ]? "is" .{6})*',
    "words": 'root ::= ("the " | "then" | "there " | "th" [aou]+ " ")*',
    "characters of several bytes": 'root ::= ("é" | "€" | "\U0001f600" | "ab" [à-ü])*',
    "nothing of one byte": "root ::= [^\\x00-\\x7F]*",
    "tokens by id": "root ::= (<[700]> | <[5500]> | <[4000]>)*",
}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temp": 0.0},
    "default": {"temp": 0.8, "top_k": 40},
    "large top-k": {"temp": 1.2, "top_k": 900, "top_p": 1.0, "min_p": 0.0},
    "top-k of all": {"temp": 1.0, "top_k": 5999, "top_p": 0.9},
    "min-p": {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 1e-3},
    "typical": {"temp": 1.0, "top_k": 50, "typical_p": 0.7},
    "penalties": {"temp": 1.5, "top_k": 100, "repeat_penalty": 1.3, "frequency_penalty": 0.4},
    "bias": {"temp": 0.9, "top_k": 60, "logit_bias": {700: -3.0, 5500: 4.0, 905: -100.0}},
}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_grammars(pair: Callable[..., Pair], model: str, grammar: str, sampling: str) -> None:
    """With few tokens that are allowed, and with many."""
    both = pair(model, {"n_vocab": N_VOCAB}, token_set=SOME)
    asked = dict(SAMPLINGS[sampling])
    bias = asked.pop("logit_bias", None)
    texts = []
    for llm in (both.stock, both.exact):
        rules = llama_cpp.LlamaGrammar.from_string(GRAMMARS[grammar], verbose=False)
        if bias is None:
            texts.append([take(llm, p, 40, grammar=rules, seed=3, **asked) for p in PROMPTS])
            continue
        asked_once = {**asked, "temperature": asked["temp"], "logit_bias": bias, "seed": 3}
        asked_once.pop("temp")
        llm.reset()
        texts.append(
            [
                llm.create_completion(p, max_tokens=40, grammar=rules, **asked_once)["choices"]
                for p in PROMPTS
            ]
        )
    assert texts[0] == texts[1]


def test_tokens_by_name() -> None:
    """Of a grammar that names tokens, none may be left out for its text."""
    rules = {text: llama_cpp.LlamaGrammar.from_string(text) for text in GRAMMARS.values()}
    named = [text for text, grammar in rules.items() if not names_no_token(grammar)]
    assert named == [GRAMMARS["tokens by id"]]
    for text in ('root ::= "<b>" [^<\\]]* "\\"<" # <x>', 'root ::= "a" | "<" [a-z]+ ">"'):
        assert names_no_token(llama_cpp.LlamaGrammar.from_string(text))
    for text in ('root ::= "<" <think> ">"', "root ::= !<[7]>*", 'root ::= <|"|> "a"'):
        assert not names_no_token(llama_cpp.LlamaGrammar.from_string(text))
    assert not names_no_token(None)


@pytest.mark.model
@pytest.mark.parametrize("model", ["gemma", "smollm2"])
@pytest.mark.parametrize("drafts", ["auto", "none"])
def test_a_schema(request: pytest.FixtureRequest, model: str, drafts: Any) -> None:
    """As clients ask for it: the default sampler, of which structure leaves few candidates."""
    options: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    stock = llama_cpp.Llama(str(request.getfixturevalue(model)), **options)
    core = request.getfixturevalue(f"{model}_split").core
    schema = {
        "type": "object",
        "properties": {"spouse_name": {"type": "string"}, "birth_year": {"type": "integer"}},
        "required": ["spouse_name", "birth_year"],
    }
    llm = TailoredLlama(core, drafts=drafts, **options)
    grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
    for seed in (5, 6) if drafts == "auto" else (5,):
        asked: dict[str, Any] = {"max_tokens": 24, "grammar": grammar, "seed": seed}
        prompt = "Marie Curie, born in 1867, married Pierre. As JSON:\n"
        expected = stock.create_completion(prompt, **asked)["choices"]
        assert llm.create_completion(prompt, **asked)["choices"] == expected
    stats = llm._text.verifier.stats()
    assert drafts == "none" or stats.n_whole == 0
    assert llm.stats.head_rows < llm.n_vocab() // 4
    stock.close()
    llm.close()
