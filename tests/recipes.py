"""The recipes of docs/integrations.md."""

from __future__ import annotations

import re
from pathlib import Path

_TEXT = (Path(__file__).parent.parent / "docs" / "integrations.md").read_text(encoding="utf-8")


def recipe(name: str, language: str = "python") -> str:
    """The code block of a name, or the first one of a language that has none."""
    heading = f"```{language} {name}".rstrip()
    found = re.search(rf"^{re.escape(heading)}\n(.*?)^```$", _TEXT, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]
