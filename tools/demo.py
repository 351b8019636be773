"""Split a model and run it side by side: stock, exact mode, and tailored mode with a token set.

Usage: demo.py MODEL.gguf

Each run is a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import statistics
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocabtailor_gguf.child import run_child
from vocabtailor_gguf.cli import main as vocabtailor

_LANGUAGES = "en,it"
_ROWS = 8000
_MODES = ("stock", "exact", "exact, set", "tailored, set")
_WIDTH, _NAME = 96, 15  # columns
_N_WARM = 32  # tokens
_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "country": {"type": "string"},
        "population": {"type": "integer"},
    },
    "required": ["city", "country", "population"],
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A prompt, and what ends its answer."""

    prompt: str
    n_tokens: int
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None


_JOBS = {
    "translation": Job(
        "English: Good morning, how are you?\nItalian: Buongiorno, come stai?\n"
        "English: The train leaves at nine.\nItalian: Il treno parte alle nove.\n"
        "English: Where is the station?\nItalian: Dov'è la stazione?\n"
        "English: I would like a glass of water.\nItalian:",
        16,
        ("\n",),
    ),
    "completion": Job("The city of Rome is known for", 48),
    "JSON by a schema": Job(
        "Rome is the capital of Italy, with 2.8 million inhabitants. As JSON:\n",
        48,
        schema=_SCHEMA,
    ),
}


def _load(mode: str, model: str, core: str, token_set: str) -> Any:
    import llama_cpp

    from vocabtailor_gguf import TailoredLlama

    threads = os.cpu_count() or 1
    common: dict[str, Any] = {"n_ctx": 512, "n_threads": threads, "verbose": False}
    if mode == "stock":
        return llama_cpp.Llama(model, **common)
    name, _, with_set = mode.partition(", ")
    chosen = token_set if with_set else None
    return TailoredLlama(core, token_set=chosen, mode=name, **common)  # type: ignore[arg-type]


def _child(mode: str, *paths: str) -> None:
    """Run all jobs in one mode and print what came out, as JSON."""
    import llama_cpp

    from vocabtailor_gguf.process import process_memory

    llm = _load(mode, *paths)
    # pages that are read for the first time are not what is shown
    stream = llm.generate(llm.tokenize(b"Once upon a time"), temp=0.0)
    for _ in itertools.islice(stream, _N_WARM):
        pass
    stream.close()
    found: dict[str, Any] = {}
    for name, job in _JOBS.items():
        grammar = None
        if job.schema is not None:
            grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(job.schema), verbose=False)
        text = ""
        times: list[float] = []
        tokens: list[int] = []
        # each token as it comes: text is held back where it may be the begin of a stop string
        stream = llm.generate(llm.tokenize(job.prompt.encode()), temp=0.0, grammar=grammar)
        for token in itertools.islice(stream, job.n_tokens):
            times.append(time.perf_counter())
            if llama_cpp.llama_vocab_is_eog(llm._model.vocab, token):
                break
            tokens.append(token)
            text = llm.detokenize(tokens).decode("utf-8", "replace")
            if any(s in text for s in job.stop):
                break
        stream.close()
        for s in job.stop:
            text = text.split(s)[0]
        found[name] = {"text": text, "intervals": [b - a for a, b in itertools.pairwise(times)]}
    memory = process_memory()
    found["resident"] = memory.anon + memory.file
    print(json.dumps(found))


def _speed(found: dict[str, Any], jobs: Callable[[Job], bool]) -> str:
    """Return tokens per second of some jobs: exact mode gives tokens in blocks, so their mean."""
    intervals = [i for name, j in _JOBS.items() if jobs(j) for i in found[name]["intervals"]]
    return f"{1 / statistics.mean(intervals):.1f}"


def _show(results: dict[str, dict[str, Any]]) -> None:
    columns = ("text is stock's", "tokens/s", "under a schema", "resident MB")
    print(f"\n{'mode':<{_NAME}}" + "".join(f"{c:>17}" for c in columns))
    stock = results["stock"]
    for mode, found in results.items():
        same = sum(found[n]["text"] == stock[n]["text"] for n in _JOBS)
        row = (
            "-" if mode == "stock" else f"{same} of {len(_JOBS)}",
            _speed(found, lambda j: j.schema is None),
            _speed(found, lambda j: j.schema is not None),
            f"{found['resident'] / 1e6:.0f}",
        )
        print(f"{mode:<{_NAME}}" + "".join(f"{c:>17}" for c in row))
    for name, job in _JOBS.items():
        lines = job.prompt.strip().splitlines()
        print(f"\n{name}: {' / '.join(lines[-2:])}")
        for mode, found in results.items():
            text = " ".join(found[name]["text"].split())
            if mode != "stock" and found[name]["text"] == stock[name]["text"]:
                text = "the same"
            indents = {
                "initial_indent": f"  {mode:<{_NAME}}",
                "subsequent_indent": " " * (_NAME + 2),
            }
            print(textwrap.fill(text, _WIDTH, **indents))


def main() -> int:
    """Split, make a token set, run, print a table."""
    model = Path(sys.argv[1])
    core = model.with_name(model.stem + ".core.gguf")
    vocab = model.with_name(model.stem + ".vocab.gguf")
    if not (core.exists() and vocab.exists()):
        print(f"== splitting {model.name}; the split is proved against the whole model", flush=True)
        if vocabtailor(["split", str(model), "--force"]) != 0:
            return 1
    token_set = model.with_name(f"{model.stem}.{_LANGUAGES.replace(',', '-')}.tokens.json")
    if not token_set.exists():
        print(f"== the {_ROWS:,} most frequent tokens of English and Italian", flush=True)
        asked = ["profile", "-m", str(vocab), "--language", _LANGUAGES, "--rows", str(_ROWS)]
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as log,
        ):
            failed = vocabtailor([*asked, "-o", str(token_set)]) != 0
        if failed:
            print(log.getvalue(), file=sys.stderr)
            return 1
    print("== running each mode in a process of its own, greedy", flush=True)
    results = {}
    for mode in _MODES:
        ended = run_child(Path(__file__), "--child", mode, model, core, token_set)
        if ended.result is None:
            print(
                f"demo: {mode} mode: {ended.sentence}; `vocabtailor doctor` tells more",
                file=sys.stderr,
            )
            return 1
        results[mode] = ended.result
    _show(results)
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _child(*sys.argv[2:])
    else:
        sys.exit(main())
