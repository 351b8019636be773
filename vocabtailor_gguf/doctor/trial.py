"""What only running tells: a tiny model, stock and split, and a model of the user's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from vocabtailor_gguf.child import run_child
from vocabtailor_gguf.doctor.build import built_flags
from vocabtailor_gguf.doctor.check import Check
from vocabtailor_gguf.doctor.tiny import write_tiny_model
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.gguf.pair import read_pair, sibling_store

_CHILD = "vocabtailor_gguf.doctor.child"
_TIMEOUT = 120  # seconds
_SECONDS = 5  # of the measurement


def check_decode() -> list[Check]:
    """Decode with stock llama.cpp and with a split model, and compare the bits."""
    with tempfile.TemporaryDirectory(prefix="vocabtailor-doctor-") as folder:
        model = write_tiny_model(Path(folder) / "tiny.gguf")
        stock, checks = _run("stock decode", "stock", str(model), advice=_stock_advice())
        if stock is None:
            return checks
        split, more = _run(
            "split decode", "split", str(model), folder,
            advice="stock llama.cpp runs: please report this with the output of doctor --json",
        )  # fmt: skip
        checks += more
    if split is not None:
        checks.append(_compare(stock, split))
    return checks


def _run(name: str, *arguments: str, advice: str) -> tuple[dict[str, Any] | None, list[Check]]:
    ended = run_child(_CHILD, *arguments, timeout=_TIMEOUT)
    if ended.result is None:
        return None, [Check(name, "fail", f"a tiny model: {ended.sentence}", advice)]
    n_tokens = len(ended.result["tokens"])
    return ended.result, [Check(name, "ok", f"a tiny model, {n_tokens} tokens")]


def _stock_advice() -> str:
    if "AMX_INT8" in built_flags():
        return (
            "llama-cpp-python was compiled with AMX, which GCC before 11.5, 12.4, 13.3 and 14 gets "
            "wrong: build it with `make install`, or with -mno-amx-tile -mno-amx-int8 "
            "-mno-amx-bf16 in CFLAGS and CXXFLAGS"
        )
    return (
        "llama.cpp itself does not run here: build llama-cpp-python on this machine, with pip's "
        "--no-cache-dir --force-reinstall --no-binary llama-cpp-python"
    )


def _compare(stock: dict[str, Any], split: dict[str, Any]) -> Check:
    if split["digests"] != stock["digests"]:
        step = next(
            i
            for i, (a, b) in enumerate(zip(stock["digests"], split["digests"], strict=True))
            if a != b
        )
        found = f"logits differ from stock's at step {step}"
    elif split["exact"] != stock["tokens"]:
        found = "exact mode gives other tokens than stock"
    else:
        return Check(
            "identity", "ok", "all logits are stock's, bit for bit, and so are exact mode's tokens"
        )
    return Check(
        "identity", "fail", found,
        "the split model is not the same here: please report this with the output of doctor --json",
    )  # fmt: skip


def check_model(core_path: str, vocab_path: str | None) -> list[Check]:
    """Check a split model and measure its speed for some seconds."""
    if not os.path.lexists(core_path):
        advice = "-m takes the NAME.core.gguf that vocabtailor split has written"
        return [Check("model", "fail", f"{core_path}: no such file", advice)]
    try:
        core, vocab = read_pair(core_path, vocab_path or sibling_store(core_path))
    except (VocabTailorError, OSError) as e:
        return [Check("model", "fail", str(e), "split the model again: vocabtailor split MODEL")]
    size = sum(os.path.getsize(h.path) for h in (core, vocab))
    name = core.get("general.name") or Path(core.path).name
    checks = [Check("model", "ok", f"{name}, {size / 1e6:.0f} MB, core and store belong together")]
    ended = run_child(
        _CHILD, "speed", core.path, vocab.path, str(_SECONDS), timeout=_TIMEOUT + _SECONDS
    )
    found = ended.result
    if found is None:
        advice = "vocabtailor verify -m CORE --source MODEL tells whether the files are whole"
        return [*checks, Check("speed", "fail", ended.sentence, advice)]
    speed = (
        f"{found['tokens_per_second']:.1f} tokens/s in exact mode, no token set, "
        f"{found['n_threads']} threads; loaded in {found['load_seconds']:.1f} s"
    )
    drafts = f"passes of up to {found['together']} tokens give the bits of single ones"
    if found["together"] == 1:
        drafts = f"nothing from the text: {found['why_alone']}"
    return [*checks, Check("speed", "ok", speed), Check("drafts", "ok", drafts)]
