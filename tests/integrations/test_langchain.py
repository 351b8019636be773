"""LangChain's classes on a split model give what they give on the unsplit one."""

from __future__ import annotations

import contextlib
import doctest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recipes import recipe

pytest.importorskip("langchain_community")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

OPTIONS: dict[str, Any] = {
    "n_ctx": 256, "n_threads": 1, "seed": 3, "temperature": 0.9, "max_tokens": 24, "n_batch": 256,
    "model_kwargs": {"n_threads_batch": 1}, "verbose": False,
}  # fmt: skip


@contextlib.contextmanager
def both(ours: Any, theirs: Any, model: Path, core: Path, **options: Any) -> Iterator[list[Any]]:
    models = [kind(model_path=str(file), **OPTIONS, **options)
              for kind, file in ((theirs, model), (ours, core))]  # fmt: skip
    yield models
    for each in models:
        each.client.close()


@pytest.fixture
def files(tiny: Callable[..., Path], tiny_split: Callable[..., Any]) -> tuple[Path, Path]:
    return tiny("qwen2"), tiny_split("qwen2").core


def test_texts(files: tuple[Path, Path]) -> None:
    from langchain_community.llms import LlamaCpp

    from vocabtailor_gguf.integrations.langchain import TailoredLLM

    with both(TailoredLLM, LlamaCpp, *files) as (stock, ours):
        for prompt in ("Rome is", "In the beginning"):
            assert ours.invoke(prompt) == stock.invoke(prompt)
            assert list(ours.stream(prompt)) == list(stock.stream(prompt))
    with both(TailoredLLM, LlamaCpp, *files, grammar='root ::= "yes" | "no"') as (stock, ours):
        assert ours.invoke("Is it?") == stock.invoke("Is it?")
        assert ours.client.mode == "exact"


def test_chats(files: tuple[Path, Path]) -> None:
    from langchain_community.chat_models import ChatLlamaCpp
    from pydantic import BaseModel

    from vocabtailor_gguf.integrations.langchain import ChatTailored

    class Choice(BaseModel):
        """A choice."""

        yes: bool

    with both(ChatTailored, ChatLlamaCpp, *files) as (stock, ours):
        chat = [("system", "Be brief."), ("human", "Where is Rome?")]
        assert ours.invoke(chat).content == stock.invoke(chat).content
        parts = [[c.content for c in model.stream(chat)] for model in (stock, ours)]
        assert parts[0] == parts[1]
        found = [m.with_structured_output(Choice).invoke(chat) for m in (stock, ours)]
        assert isinstance(found[0], Choice)
        assert found[0] == found[1]


def test_options(files: tuple[Path, Path], tmp_path: Path) -> None:
    from vocabtailor_gguf import TokenSet
    from vocabtailor_gguf.integrations.langchain import ChatTailored, TailoredLLM

    TokenSet(range(300, 320)).save(tmp_path / "few.tokens.json")
    (tmp_path / "a.gbnf").write_text('root ::= "yes"')
    llm = TailoredLLM(
        model_path=str(files[1]), token_set=str(tmp_path / "few.tokens.json"), mode="tailored",
        grammar_path=tmp_path / "a.gbnf", **OPTIONS,
    )  # fmt: skip
    assert llm.client.mode == "tailored"
    assert set(range(300, 320)) <= set(llm.client.active_ids.tolist())
    assert llm.invoke("Is it?") == "yes"
    llm.client.close()
    for kind in (TailoredLLM, ChatTailored):
        with pytest.raises(ValueError, match="cannot be opened"):
            kind(model_path=str(tmp_path / "missing.gguf"))
        with pytest.raises(ValueError, match="expected one"):
            kind(model_path=str(files[1]), grammar="a", grammar_path="b")


def test_the_examples(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from vocabtailor_gguf.integrations import langchain

    found = doctest.testmod(langchain, extraglobs={"CORE": files[1]})
    assert found.attempted > 0
    assert found.failed == 0
    capsys.readouterr()
    names: dict[str, Any] = {}
    exec(recipe("langchain").replace("NAME.core.gguf", str(files[1])), names)
    assert capsys.readouterr().out
    names["llm"].client.close()
    names["chat"].client.close()
