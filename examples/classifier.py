"""Classifies texts by how likely a model finds each label after them; nothing is generated.

python examples/classifier.py MODEL [TEXT ...]
"""

from __future__ import annotations

import sys

import numpy as np

from vocabtailor_gguf import TailoredLlama

LABELS = ["sport", "food", "weather"]
PROMPT = """\
Text: The striker scored twice before the break.
Topic: sport
Text: Bake the bread for forty minutes.
Topic: food
Text: Fog in the morning, sunny later.
Topic: weather
Text: {text}
Topic:"""


def classify(llm: TailoredLlama, text: str) -> dict[str, float]:
    """Returns the probability of each label, given that it is one of them."""
    scores = llm.score_continuations(PROMPT.format(text=text), [f" {label}" for label in LABELS])
    total = np.array([score.total for score in scores])  # (n_labels,) f64, log-probabilities
    found = np.exp(total - total.max())
    return dict(zip(LABELS, (found / found.sum()).tolist(), strict=True))


def main() -> None:
    """Prints the best label of each text, and its probability."""
    texts = sys.argv[2:] or ["Add salt to the soup.", "Heavy rain is expected on Monday."]
    llm = TailoredLlama(sys.argv[1], n_ctx=512, verbose=False)
    for text in texts:
        found = classify(llm, text)
        best = max(found, key=lambda label: found[label])
        print(f"{best}\t{found[best]:.2f}\t{text}")
    llm.close()


if __name__ == "__main__":
    main()
