"""Lets a small model draft for a large one of the same tokenizer: the text is the large one's.

python examples/small_drafter.py LARGE SMALL [PROMPT] [--ahead N] [--token-set FILE]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp.llama_speculative import LlamaDraftModel

from vocabtailor_gguf import TailoredLlama

PROMPT = "The harbour of the island was closed for three days, because"


class SmallModel(LlamaDraftModel):  # type: ignore[misc]
    """Says greedily what a model would go on with."""

    def __init__(self, llm: llama_cpp.Llama, n_ahead: int) -> None:
        self._llm = llm
        self._n_ahead = n_ahead

    def __call__(self, input_ids: npt.NDArray[np.intc], /, **_: Any) -> npt.NDArray[np.intc]:
        """Returns the ids that may follow; none where the small model has no room for them."""
        ids = input_ids.tolist()
        ahead: list[int] = []
        if len(ids) + self._n_ahead <= self._llm.n_ctx():
            # what the text shares with the one before is not decoded again
            for token in self._llm.generate(ids, temp=0.0):
                ahead.append(token)
                if len(ahead) == self._n_ahead:
                    break
        return np.array(ahead, dtype=np.intc)


def main() -> None:
    """Prints the large model's text, and on standard error what the drafts were worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("large")
    parser.add_argument("small")
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    parser.add_argument("--ahead", type=int, default=4, help="tokens that are drafted at once")
    parser.add_argument("--token-set", help="of the small model; what it lacks is not drafted")
    parser.add_argument("-n", type=int, default=64, help="tokens of the text")
    args = parser.parse_args()
    common: dict[str, Any] = {"n_ctx": 2048, "verbose": False}
    mode = "exact" if args.token_set is None else "tailored"
    small = TailoredLlama(args.small, token_set=args.token_set, mode=mode, **common)
    large = TailoredLlama(args.large, draft_model=SmallModel(small, args.ahead), **common)
    if small.store.tokenizer_sha256 != large.store.tokenizer_sha256:
        parser.error("the models have different tokenizers")
    out = large.create_completion(args.prompt, max_tokens=args.n, temperature=0.0)
    print(out["choices"][0]["text"])
    stats = large.stats
    print(f"{stats.agreed} of {stats.ahead} tokens ahead were right", file=sys.stderr)
    large.close()
    small.close()


if __name__ == "__main__":
    main()
