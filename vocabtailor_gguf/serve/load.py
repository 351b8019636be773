"""From files to a pool of slots."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vocabtailor_gguf.serve.pool import Pool, Slot
from vocabtailor_gguf.serve.preset import DEFAULT_SET, Preset
from vocabtailor_gguf.serve.watch import WatchedLlama
from vocabtailor_gguf.sets.kept import Kept
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
    learned: Path | None = None,
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
        learn: Let drafts of exact mode have what those of earlier requests lacked, on any slot.
        learned: With `learn`, the file that keeps that for the next start; see `sets.kept`.
        **options: Further arguments of `TailoredLlama`.

    Raises:
        VocabTailorError: A file is malformed, or does not belong to the model.
    """
    has = preset or Preset()
    with contextlib.ExitStack() as undo:
        llm = WatchedLlama(model, token_set=token_set, mode=has.mode, audit=has.audit, **options)
        undo.callback(llm.close)
        named: dict[str, TokenSet | None] = {DEFAULT_SET: token_set, **(sets or {})}
        for name, chosen in named.items():
            if chosen is not None:
                chosen.check(llm.store, name)
        store = llm.store
        kept = Kept(learned, store.tokenizer_sha256, store.n_vocab) if learn else None
        made = [Slot(0, llm, named, has, kept=kept)]
        made[0].catch_up()  # forks share its rows
        made += [Slot(i, llm.fork(), named, has, kept=kept) for i in range(1, slots)]
        undo.pop_all()
        return Pool(made, queue, kept)
