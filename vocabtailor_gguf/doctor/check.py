"""What a diagnosis consists of."""

from __future__ import annotations

import dataclasses
from typing import Literal

from vocabtailor_gguf.record import Record

Status = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True)
class Check(Record):
    """One line of a diagnosis.

    Attributes:
        name: What was looked at.
        status: ``"ok"``, ``"warn"`` (it runs, but worse than it could) or ``"fail"`` (it does not).
        found: What was found.
        advice: What to do; empty where there is nothing to do.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclasses.dataclass(frozen=True)
class Diagnosis(Record):
    """All checks.

    Attributes:
        ok: Whether none of them failed.
        checks: In the order in which they were made.
    """

    ok: bool
    checks: tuple[Check, ...]


def diagnosis(checks: list[Check]) -> Diagnosis:
    """Return a diagnosis of these checks."""
    return Diagnosis(all(c.status != "fail" for c in checks), tuple(checks))
