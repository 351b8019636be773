"""Split a model and run it three ways side by side.

Usage: demo.py MODEL.gguf

Each run is a process of its own: stock llama-cpp-python, full mode and tailored mode.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

_LANGUAGES = "en,it"
_ROWS = 8000
_PROMPTS = {
    "translation": (
        "English: Good morning, how are you?\nItalian: Buongiorno, come stai?\n"
        "English: The train leaves at nine.\nItalian: Il treno parte alle nove.\n"
        "English: Where is the station?\nItalian: Dov'è la stazione?\n"
        "English: I would like a glass of water.\nItalian:",
        16,
    ),
    "completion": ("The city of Rome is known for", 48),
}
_MODES = ("stock", "full", "tailored")


def _child(mode: str, model: str, core: str, token_set: str) -> None:
    """Run both prompts in one mode and print what came out, as JSON."""
    import time

    import llama_cpp

    from vocabtailor_gguf import TailoredLlama
    from vocabtailor_gguf.process import process_memory

    common: dict[str, Any] = {"n_ctx": 512, "verbose": False}
    if mode == "stock":
        llm = llama_cpp.Llama(model, **common)
    else:
        chosen = token_set if mode == "tailored" else None
        llm = TailoredLlama(core, token_set=chosen, mode=mode, **common)  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for name, (prompt, n) in _PROMPTS.items():
        times = []
        text = ""
        stop = ["\n"] if name == "translation" else []
        stream = llm.create_completion(prompt, max_tokens=n, temperature=0, stop=stop, stream=True)
        for chunk in stream:
            times.append(time.perf_counter())
            text += chunk["choices"][0]["text"]
        found[name] = {
            "text": text.strip(),
            "intervals": [b - a for a, b in itertools.pairwise(times)],
        }
    memory = process_memory()
    found["resident"] = memory.anon + memory.file
    if isinstance(llm, TailoredLlama):
        found["rows"] = llm.stats.head_rows
        report = llm.memory_report()
        found["vocabulary"] = report.embedding + report.head + report.logits
    else:
        found["rows"] = llm.n_vocab()
    print(json.dumps(found))


def _run(mode: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", mode, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _speed(found: dict[str, Any]) -> float:
    """Return tokens per second: the median of the intervals, which ignores a slow start."""
    intervals = sorted(i for name in _PROMPTS for i in found[name]["intervals"] if i > 1e-3)
    return 1 / intervals[len(intervals) // 2]


def main() -> None:
    """Split, make a token set, run, print a table."""
    model = Path(sys.argv[1])
    core = model.with_name(model.stem + ".core.gguf")
    vocab = model.with_name(model.stem + ".vocab.gguf")
    if not (core.exists() and vocab.exists()):
        print(f"== splitting {model.name}; the split is proved against the whole model", flush=True)
        command = [sys.executable, "-m", "vocabtailor_gguf", "split", str(model), "--force"]
        subprocess.run(command, check=True)
    token_set = model.with_name(f"{model.stem}.{_LANGUAGES.replace(',', '-')}.tokens.json")
    if not token_set.exists():
        print(f"== the {_ROWS:,} most frequent tokens of English and Italian", flush=True)
        command = [sys.executable, "-m", "vocabtailor_gguf", "profile", "-m", str(vocab)]
        command += ["--language", _LANGUAGES, "--rows", str(_ROWS), "-o", str(token_set)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("== running each mode in a process of its own, greedy", flush=True)
    results = {m: _run(m, str(model), str(core), str(token_set)) for m in _MODES}

    print(f"\n{'mode':<10}{'tokens/s':>10}{'resident MB':>13}{'head rows':>11}")
    for mode, found in results.items():
        resident = found["resident"] / 1e6
        print(f"{mode:<10}{_speed(found):>10.1f}{resident:>13.0f}{found['rows']:>11,}")
    for name, (prompt, _) in _PROMPTS.items():
        last = prompt.splitlines()[-2:] if name == "translation" else [prompt]
        print(f"\n{name}: {' / '.join(last)}")
        for mode, found in results.items():
            text = " ".join(found[name]["text"].split())
            print(
                textwrap.fill(text, 96, initial_indent=f"  {mode:<10}", subsequent_indent=" " * 12)
            )


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _child(*sys.argv[2:])
    else:
        main()
