"""Summarises a text in a sentence, as it comes, and learns a token set from text to text.

python examples/summariser.py MODEL [--learn FILE] [FILE ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from vocabtailor_gguf import TailoredLlama, VocabTailorError

TEXT = """\
The harbour of the island was closed for three days after a storm had moved sand into its mouth. \
Fishing boats stayed on the mainland, and the shops ran out of bread on the second day. On Friday \
a dredger from the next port opened a way of four metres, and the ferry came in at noon."""
PROMPT = "{text}\n\nIn one sentence, the text says that"


def summarise(llm: TailoredLlama, text: str) -> Iterator[str]:
    """Yields the pieces of a sentence. The text's own words are active while it lasts."""
    prompt = llm.tokenize(PROMPT.format(text=text).encode())
    for step in llm.stream(prompt, max_tokens=64, temp=0.0):
        yield step.text
        if step.text.endswith((".", "\n")):
            return


def main() -> None:
    """Prints a sentence for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--learn", type=Path, help="a token set that grows")
    args = parser.parse_intermixed_args()
    begin = args.learn if args.learn and args.learn.exists() else None
    llm = TailoredLlama(args.model, token_set=begin, n_ctx=2048, verbose=False)
    for text in [p.read_text(encoding="utf-8") for p in args.files] or [TEXT]:
        for piece in summarise(llm, text.strip()):
            print(piece, end="", flush=True)
        print()
    if args.learn:
        try:
            learned = llm.learned_token_set()
            learned.save(args.learn)
            print(f"{args.learn}: {len(learned)} tokens", file=sys.stderr)
        except VocabTailorError as e:  # frequent tokens and those of the texts were enough
            print(f"{args.learn}: {e}", file=sys.stderr)
    llm.close()


if __name__ == "__main__":
    main()
