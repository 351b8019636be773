"""All checks, in the order in which they help."""

from __future__ import annotations

from collections.abc import Callable

from vocabtailor_gguf.doctor import build, machine, trial
from vocabtailor_gguf.doctor.check import Check, Diagnosis, diagnosis


def examine(
    core: str | None = None,
    vocab: str | None = None,
    *,
    progress: Callable[[Check], None] | None = None,
) -> Diagnosis:
    """Look at this machine, at the build, and at a model where one is given.

    Args:
        core: ``NAME.core.gguf``, or None.
        vocab: ``NAME.vocab.gguf``; by default the one beside the core.
        progress: Called with each check as it is made.
    """
    checks: list[Check] = []

    def note(*more: Check) -> bool:
        for check in more:
            checks.append(check)
            if progress is not None:
                progress(check)
        return all(c.status != "fail" for c in more)

    # before anything of ours is busy
    note(machine.check_contention(), machine.check_threads(), machine.check_memory())
    if note(*build.check_versions(), build.check_cpu()):
        note(build.check_buffers(), build.check_scan())
        if note(*trial.check_decode()) and core is not None:
            note(*trial.check_model(core, vocab))
    return diagnosis(checks)
