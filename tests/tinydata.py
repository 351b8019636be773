"""A tiny data set for the tests of evaluations, of words that tiny tokenizers know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROWS = [
    {"source": f"the {noun} of number {i}", "target": f"word {noun} {i}"}
    for i, noun in enumerate("water people time number way call part day".split())
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
