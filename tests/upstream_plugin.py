"""Plugin for llama-cpp-python's own tests, in the process that runs them; see test_upstream.py.

Their downloads give models of ours, and ``llama_cpp.Llama`` is what the environment says. Each
result is a line of JSON, written when it is known, so that a crash leaves those before it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

_GIVEN: dict[str, Any] = json.loads(os.environ["VOCABTAILOR_UPSTREAM"])
_MODE: str = _GIVEN["mode"]  # or "stock"
_MODELS: dict[str, str] = _GIVEN["models"]  # by the name of the file that a test downloads
_CORES: dict[str, str] = _GIVEN["cores"]  # of these models
_RESULTS = Path(_GIVEN["results"])


def _hf_hub_download(repo_id: str, filename: str, **_: Any) -> str:
    if filename not in _MODELS:
        pytest.skip(f"has no model for {Path(filename).name}")
    return _MODELS[filename]


def _log_softmax(x: Any, axis: int = -1) -> Any:
    x = np.asarray(x)
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def _module(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


_module("huggingface_hub", hf_hub_download=_hf_hub_download)
if importlib.util.find_spec("scipy") is None:  # wanted for one function
    _module("scipy")
    _module("scipy.special", log_softmax=_log_softmax)

if _MODE != "stock":
    from vocabtailor_gguf import TailoredLlama

    class Llama(TailoredLlama):
        """Takes the unsplit model's path, as the tests give it."""

        def __init__(self, model_path: str, **kwargs: Any) -> None:
            super().__init__(_CORES.get(model_path, model_path), mode=_MODE, **kwargs)

    llama_cpp.Llama = Llama


def _write(**result: Any) -> None:
    with open(_RESULTS, "a", encoding="utf-8") as f:
        f.write(json.dumps(result) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    _write(test=nodeid, outcome="crashed", why="the process ended")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        why = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
        if isinstance(report.longrepr, tuple):  # of a skipped test
            why = report.longrepr[2]
        _write(test=report.nodeid, outcome=report.outcome, why=str(why).splitlines()[:1])
