"""Extracts a JSON object that obeys a schema, whatever the model would rather write.

python examples/extractor.py MODEL [TEXT]
"""

from __future__ import annotations

import json
import sys
from typing import Any

import llama_cpp

from vocabtailor_gguf import TailoredLlama

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "city": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
    },
    "required": ["name", "city", "age"],
    "additionalProperties": False,
}
PROMPT = """\
Text: Paul is a baker from Lyon. He will be 52 in June.
JSON: {{"name": "Paul", "city": "Lyon", "age": 52}}
Text: In Oslo we met Ingrid, who is 29.
JSON: {{"name": "Ingrid", "city": "Oslo", "age": 29}}
Text: {text}
JSON:"""


def extract(llm: TailoredLlama, text: str) -> dict[str, Any]:
    """Returns what the text says of a person; the grammar takes part in exact mode's proofs."""
    grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(SCHEMA), verbose=False)
    out = llm.create_completion(
        PROMPT.format(text=text), max_tokens=128, temperature=0, grammar=grammar
    )
    found: dict[str, Any] = json.loads(out["choices"][0]["text"])
    return found


def main() -> None:
    """Prints the object."""
    text = sys.argv[2] if len(sys.argv) > 2 else "Maria, 34, lives in Turin with two cats."
    llm = TailoredLlama(sys.argv[1], n_ctx=1024, verbose=False)
    print(json.dumps(extract(llm, text), ensure_ascii=False))
    llm.close()


if __name__ == "__main__":
    main()
