"""A plugin of the command ``llm``: split models that it can prompt and chat with.

``llm vocabtailor add NAME FILE`` makes one known; it is kept in ``vocabtailor.json`` in the folder
that ``llm`` has for its user.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import llama_cpp
import llm
from pydantic import Field

from vocabtailor_gguf.atomic import temporary_files
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.reading import read_json
from vocabtailor_gguf.runtime.owner import Mode

logger = logging.getLogger(__name__)


class SplitModel(llm.Model):  # type: ignore[misc]
    """A split model as ``llm`` sees it, loaded at its first prompt.

    Args:
        name: What it is called.
        arguments: Of `TailoredLlama`.
    """

    can_stream = True
    supports_schema = True

    class Options(llm.Options):  # type: ignore[misc]
        """What ``-o`` takes; what is not given has the default of ``llama_cpp.Llama``."""

        max_tokens: int | None = Field(None, ge=1, description="tokens at most")
        temperature: float | None = Field(None, ge=0, description="0: greedy")
        top_p: float | None = Field(None, ge=0, le=1)
        top_k: int | None = None
        min_p: float | None = Field(None, ge=0, le=1)
        seed: int | None = None

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.model_id = name
        self._arguments = arguments
        self._model: TailoredLlama | None = None

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Yield the parts of an answer."""
        if self._model is None:
            self._model = TailoredLlama(**{"n_ctx": 0, "verbose": False, **self._arguments})
        options = prompt.options.model_dump(exclude_none=True)
        if prompt.schema is not None:
            options["grammar"] = llama_cpp.LlamaGrammar.from_json_schema(
                json.dumps(prompt.schema), verbose=False
            )
        for part in self._model.create_chat_completion(_messages(prompt), stream=True, **options):
            yield part["choices"][0]["delta"].get("content") or ""

    def close(self) -> None:
        """Free the model, if it was loaded."""
        if self._model is not None:
            self._model.close()
            self._model = None


def _messages(prompt: Any) -> list[dict[str, str]]:
    """Return a chat, the answer's history included, as chat templates take it."""
    return [
        {"role": m.role, "content": "".join(getattr(part, "text", "") for part in m.parts)}
        for m in prompt.messages
    ]


def _file() -> Path:
    return Path(llm.user_dir()) / "vocabtailor.json"


def _known() -> dict[str, dict[str, Any]]:
    """Return the arguments of the known models by name."""
    found = read_json(_file()) if _file().exists() else {}
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise VocabTailorError(f"{_file()}: expected an object of objects")
    return found


def _write(models: dict[str, dict[str, Any]]) -> None:
    with temporary_files(_file()) as (temporary,):
        temporary.write_text(json.dumps(models, indent=2), encoding="utf-8")


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_models(register: Any) -> None:
    """Tell ``llm`` of the known models; a file of them that is broken hides no others."""
    try:
        known = _known()
    except VocabTailorError as e:
        logger.warning("%s", e)
        return
    for name, arguments in known.items():
        register(SplitModel(name, arguments))


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_commands(cli: Any) -> None:
    """Add the command ``llm vocabtailor``."""

    def models() -> dict[str, dict[str, Any]]:
        try:
            return _known()
        except VocabTailorError as e:
            raise click.ClickException(str(e)) from e

    existing = click.Path(exists=True, dir_okay=False, resolve_path=True)

    @cli.group()  # type: ignore[untyped-decorator]
    def vocabtailor() -> None:
        """Split models, which compute the LM head over the tokens that matter."""

    @vocabtailor.command()  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.argument("model", type=existing)
    @click.option("--vocab", "vocab_path", type=existing, help="NAME.vocab.gguf")
    @click.option("--token-set", type=existing, help="NAME.tokens.json")
    @click.option("--mode", type=click.Choice(get_args(Mode)), default="exact")
    @click.option("--ctx-size", "n_ctx", type=click.IntRange(0), help="0: the model's")
    def add(name: str, model: str, **options: Any) -> None:
        """Make MODEL, NAME.core.gguf or an unsplit model, known as NAME."""
        given = {k: v for k, v in options.items() if v is not None}
        _write({**models(), name: {"model_path": model, **given}})

    @vocabtailor.command()  # type: ignore[untyped-decorator]
    @click.argument("name")
    def remove(name: str) -> None:
        """Forget a model; its files stay."""
        known = models()
        if name not in known:
            raise click.ClickException(f"there is no model {name!r}")
        del known[name]
        _write(known)
