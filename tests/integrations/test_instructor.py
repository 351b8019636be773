"""Instructor, on a server and on a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from recipes import recipe
from servers import CHAT, serving

from vocabtailor_gguf import TailoredLlama

pytest.importorskip("instructor")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Place(BaseModel):
    """A place."""

    kind: Literal["city", "river"]
    old: bool


@pytest.mark.parametrize("mode", ["JSON_SCHEMA", "TOOLS"])
def test_through_the_server(tiny_split: Callable[..., Any], mode: str) -> None:
    import instructor

    with serving(tiny_split("qwen2").core, n_ctx=1024) as server, server.client() as client:
        patched = instructor.from_openai(client, mode=instructor.Mode[mode])
        place = patched.chat.completions.create(
            model="tiny",
            messages=CHAT,
            response_model=Place,
            max_tokens=200,
            temperature=0,
            max_retries=0,
        )
        assert isinstance(place, Place)


def test_on_a_model(tiny_split: Callable[..., Any]) -> None:
    import instructor

    with contextlib.closing(
        TailoredLlama(tiny_split("qwen2").core, n_ctx=1024, verbose=False)
    ) as llm:
        create = instructor.patch(
            create=llm.create_chat_completion_openai_v1, mode=instructor.Mode.TOOLS
        )
        place = create(
            messages=CHAT, response_model=Place, max_tokens=200, temperature=0, max_retries=0
        )
        assert isinstance(place, Place)


@pytest.mark.model
def test_the_recipe(smollm2_split: Any) -> None:
    with serving(smollm2_split.core, n_ctx=1024) as server:
        text = recipe("instructor").replace("http://127.0.0.1:8080", server.url)
        text = text.replace('model="model"', 'model="tiny", temperature=0')
        names: dict[str, Any] = {}
        exec(text, names)
        assert names["place"].city
        names["client"].client.close()
