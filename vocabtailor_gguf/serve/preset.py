"""What a slot generates with, beside the prompt."""

from __future__ import annotations

import dataclasses

from vocabtailor_gguf.runtime.owner import Mode

DEFAULT_SET = "default"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A token set and a mode.

    Attributes:
        token_set: Its name.
        mode: As of `TailoredLlama`.
        audit: In mode ``"tailored"``, the share of steps that are audited.
    """

    token_set: str = DEFAULT_SET
    mode: Mode = "exact"
    audit: float = 0.0
