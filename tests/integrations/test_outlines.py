"""Outlines on a split model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import llama_cpp
import pytest
from recipes import recipe

from vocabtailor_gguf import TailoredLlama

pytest.importorskip("outlines")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_choices_patterns_and_schemas(
    tiny: Callable[..., Path], tiny_split: Callable[..., Any]
) -> None:
    import outlines
    from pydantic import BaseModel

    class Place(BaseModel):
        kind: Literal["city", "river"]
        old: bool

    options: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "verbose": False}
    with (
        contextlib.closing(llama_cpp.Llama(str(tiny("qwen2")), **options)) as stock,
        contextlib.closing(TailoredLlama(tiny_split("qwen2").core, **options)) as ours,
    ):
        models = [outlines.from_llamacpp(llm) for llm in (stock, ours)]
        for wanted in (Literal["yes", "no"], outlines.regex("[a-c]{3,9}"), Place):
            for sampling in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 5}):
                found = [m("Rome is", wanted, max_tokens=60, **sampling) for m in models]
                assert found[0] == found[1]
            if wanted is Place:
                Place.model_validate_json(found[1])


def test_the_recipe(tiny_split: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(recipe("outlines").replace("NAME.core.gguf", str(tiny_split("qwen2").core)), names)
    assert capsys.readouterr().out.strip() in ("yes", "no")
    names["model"].model.close()
