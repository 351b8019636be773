"""Log-probabilities through the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from servers import CHAT, MODEL, OPTIONS, PROMPTS, Running, post


@pytest.fixture(scope="module")
def scored(tiny: Callable[..., Path]) -> Iterator[llama_cpp.Llama]:
    """A stock model that tells log-probabilities."""
    llm = llama_cpp.Llama(str(tiny(MODEL)), logits_all=True, **OPTIONS)
    yield llm
    llm.close()


def logprobs_of(chunks: Any) -> list[Any]:
    found = [c["choices"][0]["logprobs"] for c in chunks]
    return [x for x in found if x is not None]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["exact", "full"])
def test_logprobs_are_stocks(server: Running, scored: Any, mode: str, stream: bool) -> None:
    """Near stock's, as exponentials are added in another order; tokens and places are equal."""
    ask = {"max_tokens": 8, "temperature": 0.9, "seed": 3, "logprobs": 3, "stream": stream}
    scored.reset()
    expected = scored.create_completion(PROMPTS[0], **ask)
    answer = post(server, "completions", prompt=PROMPTS[0], mode=mode, **ask)
    for found, told in zip(
        logprobs_of(answer), logprobs_of(expected if stream else [expected]), strict=True
    ):
        assert found["tokens"] == told["tokens"]
        assert found["text_offset"] == told["text_offset"]
        assert found["token_logprobs"] == pytest.approx(told["token_logprobs"], abs=1e-5)
        assert [list(t) for t in found["top_logprobs"]] == [list(t) for t in told["top_logprobs"]]
    ask |= {"logprobs": True, "top_logprobs": 3}
    scored.reset()
    chat = scored.create_chat_completion(CHAT, **ask)
    answer = post(server, "chat/completions", messages=CHAT, mode=mode, **ask)
    for found, told in zip(
        logprobs_of(answer), logprobs_of(chat if stream else [chat]), strict=True
    ):
        for token, stocks in zip(found["content"], told["content"], strict=True):
            assert token["token"] == stocks["token"]
            assert token["logprob"] == pytest.approx(stocks["logprob"], abs=1e-5)
            top = [t["token"] for t in token["top_logprobs"]]
            assert top == [t["token"] for t in stocks["top_logprobs"]][:3]


def test_the_text_that_was_given_is_scored(server: Running, scored: Any) -> None:
    ids = scored.tokenize(PROMPTS[1].encode(), add_bos=False)
    scored.reset()
    expected = scored.create_completion(
        PROMPTS[1], echo=True, logprobs=2, max_tokens=1, temperature=0
    )["choices"][0]
    for prompt in (PROMPTS[1], ids):
        (answer,) = post(
            server, "completions", prompt=prompt, echo=True, logprobs=2, max_tokens=1, temperature=0
        )
        found = answer["choices"][0]
        assert found["text"] == expected["text"]
        assert found["logprobs"]["tokens"] == expected["logprobs"]["tokens"]
        assert found["logprobs"]["token_logprobs"][0] is None
        assert found["logprobs"]["token_logprobs"][1:] == pytest.approx(
            expected["logprobs"]["token_logprobs"][1:], abs=1e-5
        )


@pytest.mark.parametrize("stream", [False, True])
def test_tailored_mode_says_which_probabilities(server: Running, stream: bool) -> None:
    ask = {"max_tokens": 4, "temperature": 0, "stream": stream, "logprobs": 2}
    for path, more in (
        ("completions", {"prompt": "Rome"}),
        ("chat/completions", {"messages": CHAT, "logprobs": True, "top_logprobs": 0}),
    ):
        told = logprobs_of(post(server, path, mode="tailored", **{**ask, **more}))
        assert told
        assert {t["over"] for t in told} == {"active set"}
        assert all("over" not in t for t in logprobs_of(post(server, path, **{**ask, **more})))
        assert all(c["top_logprobs"] == [] for t in told for c in t.get("content", ()))
