"""From files to a pool of slots."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from vocabtailor_gguf.serve.pool import Pool, Slot
from vocabtailor_gguf.serve.preset import DEFAULT_SET, Preset
from vocabtailor_gguf.serve.watch import WatchedLlama
from vocabtailor_gguf.sets.token_set import TokenSet


def load_pool(
    model: str,
    *,
    slots: int,
    queue: int,
    preset: Preset | None = None,
    token_set: TokenSet | None = None,
    sets: Mapping[str, TokenSet] | None = None,
    learn: bool = True,
    **options: Any,
) -> Pool:
    """Return a pool of slots over one engine.

    Args:
        model: As `model_path` of `TailoredLlama`.
        slots: How many texts there are at the same time.
        queue: Requests that may wait.
        preset: What slots begin with, of the token set `DEFAULT_SET`; by default exact mode.
        token_set: The set of that name.
        sets: Token sets that requests may name.
        learn: Let each slot keep the tokens that drafts of exact mode lacked for its next requests.
        **options: Further arguments of `TailoredLlama`.

    Raises:
        VocabTailorError: A file is malformed, or does not belong to the model.
    """
    has = preset or Preset()
    with contextlib.ExitStack() as undo:
        own = {"mode": has.mode, "audit": has.audit, "learn": learn and has.mode == "exact"}
        llm = WatchedLlama(model, token_set=token_set, **own, **options)
        undo.callback(llm.close)
        named: dict[str, TokenSet | None] = {DEFAULT_SET: token_set, **(sets or {})}
        for name, chosen in named.items():
            if chosen is not None:
                chosen.check(llm.store, name)
        models = [llm, *(llm.fork() for _ in range(slots - 1))]
        undo.pop_all()
        return Pool([Slot(i, m, named, has, learn=learn) for i, m in enumerate(models)], queue)
