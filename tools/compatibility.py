"""Write docs/compatibility.md: TailoredLlama beside the installed llama_cpp.Llama.

Parameters and members come from the class, their state from compatibility_facts.py, the tests of
llama-cpp-python that do not pass from tests/upstream_expected.py.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import llama_cpp

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "compatibility.md"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from compatibility_facts import MEMBERS, PARAMETERS, REFUSED, Fact, where_tested  # noqa: E402
from upstream_expected import STOCK, Known  # noqa: E402

_HEAD = """# Compatibility with llama_cpp.Llama

Written by `tools/compatibility.py` for llama-cpp-python {version}; to change it, change
`tools/compatibility_facts.py` and run that again. `TailoredLlama` is a subclass of
`llama_cpp.Llama`. For each parameter of its constructor and each public member: **same** as stock,
or **differs**. "Same" of a text means the very tokens of stock.
"""


def parameters() -> list[str]:
    """Return the constructor's parameters, in its order."""
    found = inspect.signature(llama_cpp.Llama.__init__).parameters
    return [n for n, p in found.items() if n != "self" and p.kind is not p.VAR_KEYWORD]


def members() -> list[str]:
    """Return the public members of the class, and the special ones that callers use."""
    special = ("__call__", "__getstate__", "__setstate__")
    return sorted(n for n in vars(llama_cpp.Llama) if not n.startswith("_") or n in special)


def render() -> str:
    """Return the text of the document."""
    lines = [_HEAD.format(version=llama_cpp.__version__), *_counts()]
    for title, names, facts in (
        ("Parameters of the constructor", parameters(), PARAMETERS),
        ("Members", members(), MEMBERS),
    ):
        lines += [
            "",
            f"## {title}",
            "",
            "| | exact | full | tailored | | tested by |",
            "|---" * 6 + "|",
        ]
        lines += [_row(name, facts) for name in names]
    lines += ["", "## What is refused", "", "| | why | tested by |", "|---" * 3 + "|"]
    lines += [f"| {r.what} | {r.why} | `{r.test}` |" for r in REFUSED]
    lines += [
        "",
        "## llama-cpp-python's own tests",
        "",
        "`tests/test_upstream.py` fetches them with the source distribution and runs them with",
        "`TailoredLlama` in the place of `Llama`, in every mode, on a tiny model, SmolLM2 and",
        "Gemma. What stock passes passes in every mode. Stock itself does not pass these with our",
        "models; exact and full mode end with the same words where both get so far:",
        "",
        *_known(STOCK),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, facts: dict[str, Fact]) -> str:
    fact = facts[name]
    state = " | ".join((fact.exact, fact.full, fact.tailored))
    test = where_tested(name, facts)
    tested = "" if test == "-" else f"`{test}`"
    return f"| `{name}` | {state} | {fact.note} | {tested} |"


def _counts() -> list[str]:
    lines = ["| | same | differs |", "|---" * 3 + "|"]
    for title, facts in (("parameters", PARAMETERS), ("members", MEMBERS)):
        for mode in ("exact", "full", "tailored"):
            n = Counter(getattr(f, mode) for f in facts.values())
            cells = " | ".join(str(n[s]) for s in ("same", "differs"))
            lines.append(f"| {title}, {mode} | {cells} |")
    return lines


def _known(tests: Iterable[Known]) -> list[str]:
    lines = ["| test | models | why |", "|---" * 3 + "|"]
    for k in tests:
        lines.append(f"| `{k.test}` | {', '.join(k.sets)} | {k.reason} |")
    return lines


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
