"""llama-cpp-python's own tests with TailoredLlama in the place of Llama, in every mode.

What stock passes must pass. What stock fails with our models, which `upstream_expected` lists, must
end with the same words where nothing else is said there. A table of all results goes to
build/upstream.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import upstream
from conftest import TinyModel
from ggufbytes import U32, key, rebuilt
from upstream import Result
from upstream_expected import MODES, SETS, STOCK, Known

from vocabtailor_gguf.split.split import split_model

Results = dict[str, Result]
pytestmark = pytest.mark.slow
WITH_MODELS = [
    pytest.param(name, marks=[] if name == "tiny" else [pytest.mark.model]) for name in SETS
]


def known(models: str) -> dict[str, Known]:
    return {k.test: k for k in STOCK if models in k.sets}


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Results]:
    """Returns a function that runs the tests once, of a set of models and a mode."""
    folder = tmp_path_factory.mktemp("upstream")
    split = functools.cache(lambda path: split_model(path, folder / "split").core)

    @functools.cache
    def get(models: str, mode: str) -> Results:
        general: Path = tiny("llama") if models == "tiny" else request.getfixturevalue(models)
        pooled = folder / "pooled.gguf"
        if not pooled.exists():  # the tests embed with an encoder, which we do not split
            mean = {"qwen2.pooling_type": key("qwen2.pooling_type", U32, 1)}
            rebuilt(tiny("qwen2"), pooled, **mean)
        files = {
            upstream.GENERAL: general,
            upstream.TRANSFORMER: general,
            upstream.RECURRENT: tiny("mamba"),
            upstream.EMBEDDING: pooled,
        }
        cores = {path: split(path) for path in set(files.values())} if mode != "stock" else {}
        scratch = tmp_path_factory.mktemp(f"{models}-{mode}")
        return upstream.run(mode, files, cores, scratch)

    return get


@pytest.mark.parametrize("models", WITH_MODELS)
def test_stock(models: str, results: Any) -> None:
    found: Results = results(models, "stock")
    assert len(found) >= 20
    wrong = {name for name, r in found.items() if r.outcome != "passed"}
    assert wrong == set(known(models))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("models", WITH_MODELS)
def test_every_mode(models: str, mode: str, results: Any) -> None:
    stock: Results = results(models, "stock")
    found: Results = results(models, mode)
    _write_table(models, {"stock": stock, **{m: results(models, m) for m in MODES}})
    assert list(found) == list(stock)
    at_stock = known(models)
    wrong = {}
    for name, r in found.items():
        if name not in at_stock:
            if r.outcome != "passed":
                wrong[name] = str(r)
        elif r.outcome == "crashed":
            wrong[name] = str(r)
        elif at_stock[name].same and mode != "tailored" and r != stock[name]:
            wrong[name] = f"{r}, but stock {stock[name]}"
    assert not wrong


def _write_table(models: str, results: dict[str, Results]) -> None:
    columns = list(results)
    lines = [f"| test | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in results["stock"]:
        cells = [results[c][name].outcome if name in results[c] else "none" for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    counts = [sum(r.outcome == "passed" for r in found.values()) for found in results.values()]
    lines.append(f"| passed, of {len(results['stock'])} | {' | '.join(map(str, counts))} |")
    path = upstream.ROOT / "build" / "upstream" / f"{models}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
