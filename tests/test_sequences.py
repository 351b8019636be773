"""Requests one after the other, in any order: exact mode answers each as stock does."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import llama_cpp
import pytest
from exactpair import SAMPLINGS, Pair

from vocabtailor_gguf import TokenSet

N_VOCAB = 2048
GRAMMARS = ('root ::= [a-z ]+ "."', 'root ::= "{" "1"+ "}"', r'root ::= [^\n]+ "\n" root?')
STOPS: tuple[list[str], ...] = ([], ["e"], [" the", "\n"])
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "a set": {"token_set": TokenSet(range(900))},
    "learns": {"learn": True},
    "flash attention, small batches": {"flash_attn": True, "n_batch": 32, "n_ubatch": 32},
    "all logits": {"logits_all": True},
    "a short memory": {"last_n_tokens_size": 8},
}


class Sequence:
    """Random things that are asked of two models alike; only whole answers are compared."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.models: tuple[llama_cpp.Llama, ...] = (pair.stock, pair.exact)
        self.random = random.Random(seed)
        self.states: list[Any] = []
        self.left_open: list[Any] = []
        self.n_asked = 0

    @property
    def text(self) -> list[int]:
        """The text of both."""
        found, other = (m.input_ids[: m.n_tokens].tolist() for m in self.models)
        assert found == other
        return [int(token) for token in found]

    def ask(self, question: Callable[[llama_cpp.Llama], Any]) -> None:
        """Ask both."""
        expected, found = (question(model) for model in self.models)
        assert found == expected
        self.n_asked += 1

    def tokens(self, n: int) -> list[int]:
        return [self.random.randrange(300, N_VOCAB) for _ in range(n)]

    def prompt(self) -> list[int]:
        """A new one, the text again, a part of it, or the text and more."""
        text = self.text[:150]
        if not text or self.random.random() < 0.4:
            return self.tokens(self.random.choice((1, 2, 20)))
        cut = self.random.randrange(len(text)) if self.random.random() < 0.5 else len(text)
        return [*text[: cut + 1], *self.tokens(self.random.choice((0, 1, 5)))]

    def generation(self) -> None:
        """A stream that is broken off, and closed, dropped, or left as it is."""
        prompt, end = self.prompt(), self.random.choice(("close", "drop", "leave"))
        n, seed = self.random.choice((0, 1, 2, 9, 25)), self.random.choice((None, 3))
        asked = self.random.choice([*SAMPLINGS.values()])
        grammar = self.random.choice((None, None, *GRAMMARS))

        def question(model: llama_cpp.Llama) -> list[int]:
            if seed is not None:
                model.set_seed(seed)
            made = grammar and llama_cpp.LlamaGrammar.from_string(grammar, verbose=False)
            stream = model.generate(prompt, grammar=made, **asked)
            tokens = list(itertools.islice(stream, n))
            if end == "close":
                stream.close()
            elif end == "leave":
                self.left_open.append(stream)
            return tokens

        self.ask(question)

    def completion(self) -> None:
        """With a bias, stop strings, or an end of the stream."""
        asked = {**self.random.choice([*SAMPLINGS.values()])}
        asked["temperature"] = asked.pop("temp", 0.8)
        asked["max_tokens"] = self.random.choice((1, 2, 12, 30))
        asked["stop"] = self.random.choice(STOPS)
        if self.random.random() < 0.4:
            biases = itertools.cycle((5.0, 50.0, -100.0))
            asked["logit_bias"] = dict(zip(self.tokens(4), biases, strict=False))
        prompt, n = self.prompt(), self.random.choice((1, 4, None))

        def question(model: llama_cpp.Llama) -> list[str]:
            stream: Any = model.create_completion(prompt, stream=True, seed=5, **asked)
            pieces = [piece["choices"][0]["text"] for piece in itertools.islice(stream, n)]
            stream.close()
            return pieces

        self.ask(question)

    def single_samples(self) -> None:
        """After tokens that the caller gives; a chain that was there goes on."""
        given, n = self.tokens(self.random.choice((1, 3))), self.random.choice((1, 4))
        asked = self.random.choice([*SAMPLINGS.values()])

        def question(model: llama_cpp.Llama) -> list[int]:
            model.eval(given)
            tokens = []
            for _ in range(n):
                tokens.append(int(model.sample(**asked)))
                model.eval(tokens[-1:])
            return tokens

        self.ask(question)

    def cut(self) -> None:
        """The text becomes shorter, and goes on."""
        n = self.random.randrange(len(self.text) or 1)

        def question(model: llama_cpp.Llama) -> int:
            model.n_tokens = n
            model.eval([700])
            return int(model.sample(temp=0.0))

        self.ask(question)

    def state(self) -> None:
        """One that is saved, or goes on."""
        if not self.states and self.text:
            self.states = [model.save_state() for model in self.models]
        elif self.states:
            for model, state in zip(self.models, self.states, strict=True):
                model.load_state(state)

    def another(self) -> None:
        """A reset, or streams that were left open are collected."""
        if self.random.random() < 0.5:
            self.left_open.clear()
        else:
            self.ask(lambda model: model.reset())

    def steps(self) -> Iterator[Callable[[], None]]:
        """What is asked."""
        often = [self.generation] * 4 + [self.completion] * 3 + [self.single_samples] * 2
        while True:
            yield self.random.choice([*often, self.cut, self.state, self.another])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("seed", range(12))
def test_sequences(pair: Callable[..., Pair], seed: int, options: dict[str, Any]) -> None:
    sequence = Sequence(pair("llama", {"n_vocab": N_VOCAB}, seed=4, **options), seed)
    for step in itertools.islice(sequence.steps(), 25):
        if len(sequence.text) > 190:
            sequence.ask(lambda model: model.reset())
        step()
    assert sequence.n_asked > 15
    sequence.left_open.clear()
