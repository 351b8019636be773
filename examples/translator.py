"""Translates English into Italian: examples in the prompt, exact mode, a token set if there is one.

python examples/translator.py MODEL [--token-set FILE] [TEXT ...]
"""

from __future__ import annotations

import argparse

from vocabtailor_gguf import TailoredLlama

PROMPT = """\
English: Good morning, how are you?
Italian: Buongiorno, come stai?
English: The train leaves at nine.
Italian: Il treno parte alle nove.
English: I would like a glass of water.
Italian: Vorrei un bicchiere d'acqua.
English: {text}
Italian:"""


def translate(llm: TailoredLlama, text: str) -> str:
    """Returns the line that goes on with the examples."""
    out = llm.create_completion(
        PROMPT.format(text=text), max_tokens=4 * len(text.split()) + 16, temperature=0, stop=["\n"]
    )
    return str(out["choices"][0]["text"]).strip()


def main() -> None:
    """Translates each text; what the examples of the prompt took is decoded only once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("texts", nargs="*", default=["The cat sleeps.", "Where is the station?"])
    parser.add_argument("--token-set", help="makes exact mode faster where it fits Italian")
    args = parser.parse_intermixed_args()
    llm = TailoredLlama(args.model, token_set=args.token_set, n_ctx=1024, verbose=False)
    for text in args.texts:
        print(translate(llm, text))
    llm.close()


if __name__ == "__main__":
    main()
