"""How well a set of any size covers texts: held-out outputs, or the model's own ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.profiling.inputs import Example
from vocabtailor_gguf.runtime.tokenizer import Forms

With = Literal["set", "prompt", "expanded"]

_ACTIVE = -1  # rank of a token that is active whatever the size of the set


@dataclasses.dataclass(frozen=True)
class TokenisedExample:
    """A prompt (n,) and an output (m,) as token ids."""

    prompt: npt.NDArray[np.int32]
    output: npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True, eq=False)
class Coverage:
    """Of every output token the size of the set from which on it is active.

    Because sets of all sizes are heads of one ranking, one pass over the texts gives the whole
    curve.

    Attributes:
        ids: (n,) int32 output tokens, text by text.
        text: (n,) int32 the text each is of.
        ranks: For ``"set"`` (the set alone), ``"prompt"`` (and the prompt's tokens) and
            ``"expanded"`` (and their other forms): (n,) int32; a token is active when its rank is
            less than the size of the set. Always-on tokens have -1.
        prompt_rows: Mean number of rows that a prompt's tokens ask for, those of the set and
            always-on ones included.
        expanded_rows: The same with their other forms.
    """

    ids: npt.NDArray[np.int32]
    text: npt.NDArray[np.int32]
    ranks: dict[With, npt.NDArray[np.int32]]
    prompt_rows: float
    expanded_rows: float

    @property
    def n_texts(self) -> int:
        """Texts."""
        return int(self.text[-1]) + 1

    def share(self, n_rows: int, which: With = "expanded") -> float:
        """Return the share of output tokens that a set of `n_rows` makes possible."""
        return float((self.ranks[which] < n_rows).mean())

    def whole(self, n_rows: int, which: With = "expanded") -> float:
        """Return the share of texts of which no token is missing."""
        missing = self.text[self.ranks[which] >= n_rows]
        return 1.0 - np.unique(missing).size / self.n_texts

    def rows_for(self, share: float, which: With = "expanded") -> int:
        """Return the least size of the set that covers a share of the output tokens."""
        ranks = np.sort(self.ranks[which])
        needed = int(np.ceil(share * ranks.size))
        return int(ranks[needed - 1]) + 1 if needed else 0

    def missed(self, n_rows: int, n: int, which: With = "expanded") -> list[tuple[int, int]]:
        """Return the `n` tokens most often missed by a set of `n_rows`, with their counts."""
        ids, counts = np.unique(self.ids[self.ranks[which] >= n_rows], return_counts=True)
        order = np.argsort(-counts, kind="stable")[:n]
        return [(int(ids[i]), int(counts[i])) for i in order]


def tokenised(tokenizer: Any, examples: Iterable[Example]) -> Iterator[TokenisedExample]:
    """Yield held-out examples as token ids, prompts and outputs apart."""
    for example in examples:
        prompt, output = (
            np.array(tokenizer.tokenize(t.encode("utf-8"), add_bos=False), dtype=np.int32)
            for t in (example.prompt, example.output)
        )
        yield TokenisedExample(prompt, output)


def measure_coverage(
    examples: Iterable[TokenisedExample],
    ranking: npt.NDArray[np.int32],
    always_on: npt.NDArray[np.int32],
    variants: Forms,
) -> Coverage:
    """Measure how the heads of a ranking cover outputs.

    Args:
        examples: Prompts and the outputs that are wanted.
        ranking: (n,) ids outside `always_on`, all of them, the best first.
        always_on: (m,) ids that are active in any case.
        variants: Finds other forms of the prompt's tokens.

    Raises:
        VocabTailorError: There are no output tokens.
    """
    n_vocab = ranking.size + always_on.size
    rank = np.full(n_vocab, _ACTIVE, dtype=np.int32)
    rank[ranking] = np.arange(ranking.size, dtype=np.int32)
    ids: list[npt.NDArray[np.int32]] = []
    found: dict[With, list[npt.NDArray[np.int32]]] = {"set": [], "prompt": [], "expanded": []}
    rows: list[tuple[int, int]] = []
    for example in examples:
        prompt = np.unique(example.prompt)
        forms = np.union1d(prompt, variants.find(prompt))
        plain = rank[example.output]
        ids.append(example.output)
        found["set"].append(plain)
        given_by: dict[With, npt.NDArray[np.int32]] = {"prompt": prompt, "expanded": forms}
        for which, given in given_by.items():
            found[which].append(np.where(np.isin(example.output, given), _ACTIVE, plain))
        rows.append((prompt.size, forms.size))
    if sum(i.size for i in ids) == 0:
        raise VocabTailorError("coverage: the texts have no output tokens")
    prompt_rows, expanded_rows = np.mean(rows, axis=0).tolist()
    return Coverage(
        ids=np.concatenate(ids),
        text=np.repeat(np.arange(len(ids), dtype=np.int32), [i.size for i in ids]),
        ranks={which: np.concatenate(parts).astype(np.int32) for which, parts in found.items()},
        prompt_rows=prompt_rows,
        expanded_rows=expanded_rows,
    )


def own_outputs(
    llm: Any,
    examples: Sequence[Example],
    *,
    shots: Sequence[Example] = (),
    stop: Sequence[str] = (),
    max_tokens: int = 128,
) -> Iterator[TokenisedExample]:
    """Yield what the model itself answers to each prompt, greedily.

    These are the texts that matter most: a token that the model wants and a set lacks changes all
    that follows.

    Args:
        llm: A ``llama_cpp.Llama`` whose output is of the whole vocabulary.
        examples: Prompts; their outputs are not looked at.
        shots: Examples with their outputs that precede each prompt, as base models need them.
        stop: Texts at which an answer ends; the token that completes one is still counted.
        max_tokens: The most tokens of an answer.
    """
    before = "".join(s.prompt + s.output for s in shots)
    for example in examples:
        prompt = llm.tokenize((before + example.prompt).encode("utf-8"))
        room = llm.n_ctx() - max_tokens
        prompt = prompt[-room:]
        output: list[int] = []
        text = b""
        for token in llm.generate(prompt, temp=0.0):
            if token == llm.token_eos():
                break
            output.append(token)
            text += llm.detokenize([token])
            if len(output) == max_tokens or any(s.encode("utf-8") in text for s in stop):
                break
        yield TokenisedExample(np.array(prompt, dtype=np.int32), np.array(output, dtype=np.int32))
