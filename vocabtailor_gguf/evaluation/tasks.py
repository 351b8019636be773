"""Tasks: YAML files that name fields, templates, limits and a metric."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from vocabtailor_gguf.errors import BadFileError, UnsupportedError, VocabTailorError
from vocabtailor_gguf.evaluation.templates import Template
from vocabtailor_gguf.reading import read_text

Style = Literal["base", "chat"]
STYLES: tuple[Style, ...] = ("base", "chat")
METRICS = ("translation", "summarisation", "extraction", "code", "maths")
_OPTIONS = {"translation": ("tokenize",), "code": ("tests",)}
_MAX_BYTES = 1 << 20
_KEYS = ("metric", "output", "shots", "max_tokens", "variables", "languages", "options", *STYLES)


@dataclasses.dataclass(frozen=True)
class Form:
    """How the examples of a task are written for one style of prompt.

    Attributes:
        template: An example.
        stop: Texts at which an answer ends.
    """

    template: Template
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class EvalTask:
    """A task.

    Attributes:
        name: As it was asked for.
        metric: One of `METRICS`.
        output: Field of the reference.
        shots: Examples before each prompt.
        max_tokens: The most tokens of an answer.
        forms: For base models, ``"base"``; for models with a chat template, ``"chat"``.
        languages: Codes of wordfreq's lists whose words complete the token sets of recipes.
        options: Of the metric: ``tokenize`` of sacrebleu's BLEU; ``tests``, the field that has
            the asserts.
    """

    name: str
    metric: str
    output: str
    shots: int
    max_tokens: int
    forms: Mapping[Style, Form]
    languages: tuple[str, ...] = ()
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def form(self, style: Style) -> Form:
        """Return how examples are written.

        Raises:
            VocabTailorError: The task has no such template.
        """
        if style not in self.forms:
            raise VocabTailorError(f"task {self.name}: has no template for {style} prompts")
        return self.forms[style]

    def fields(self, style: Style) -> tuple[str, ...]:
        """Return the fields that a record must have, as strings."""
        return (*self.form(style).template.fields, self.output)

    def limited(self, *, shots: int | None, max_tokens: int | None) -> EvalTask:
        """Return the task with other limits, where they are given."""
        return dataclasses.replace(
            self,
            shots=self.shots if shots is None else shots,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
        )


def built_in_tasks() -> list[str]:
    """Return the names of the tasks that come with the package."""
    folder = importlib.resources.files(__package__) / "tasks"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir())


def load_task(asked: str, *, templates: Path | None = None) -> EvalTask:
    """Return a task that comes with the package, or that a YAML file describes.

    Args:
        asked: A name or a path that ends in ``.yaml`` or ``.yml``; after a colon,
            ``NAME=VALUE,...`` give variables of its templates, and ``languages=it+en``.
        templates: A folder whose files take the place of the templates of the same name.

    Raises:
        BadFileError: A file cannot be read, or a key is wrong.
        UnsupportedError: PyYAML is not installed.
        VocabTailorError: There is no such task or variable.
    """
    name, _, given = asked.partition(":")
    source: Any
    if name.endswith((".yaml", ".yml")):
        source, folder = Path(name), Path(name).parent
    elif name in built_in_tasks():
        source, folder = importlib.resources.files(__package__) / "tasks" / f"{name}.yaml", None
    else:
        known = ", ".join(built_in_tasks())
        raise VocabTailorError(f"task {name!r}: expected one of {known}, or a .yaml file")
    with importlib.resources.as_file(source) as path:
        data = _read(path)
    return _task(asked, name, data, _given(asked, given), [templates, folder])


def _given(asked: str, text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if any(not equals or not name for name, equals, _ in pairs):
        raise VocabTailorError(f"task {asked!r}: expected NAME=VALUE,... after the colon")
    return {name: value for name, _, value in pairs}


def _read(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as e:
        raise UnsupportedError(
            "tasks need the package PyYAML: pip install 'vocabtailor_gguf[eval]'"
        ) from e
    try:
        data = yaml.safe_load(read_text(path, limit=_MAX_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        if isinstance(e, BadFileError):
            raise
        raise BadFileError(f"{path}: not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(data, dict):
        raise BadFileError(f"{path}: found {type(data).__name__}, expected keys")
    _check(str(path), data)
    return data


def _check(where: str, data: dict[str, Any]) -> None:
    unknown = [k for k in data if k not in _KEYS]
    if unknown:
        raise BadFileError(f"{where}: {unknown[0]!r}: expected one of {', '.join(_KEYS)}")
    if data.get("metric") not in METRICS:
        found = _shown(data.get("metric"))
        raise BadFileError(f"{where}: metric: found {found}, expected one of {', '.join(METRICS)}")
    if not isinstance(data.get("output"), str):
        raise BadFileError(f"{where}: output: expected the name of a field")
    for key, least in (("shots", 0), ("max_tokens", 1)):
        found = data.get(key, least)
        if type(found) is not int or not least <= found < 2**20:
            raise BadFileError(f"{where}: {key}: found {_shown(found)}, expected {least} or more")
    for key in ("variables", "options"):
        if not _is_strings(data.get(key, {})):
            raise BadFileError(f"{where}: {key}: expected names and texts")
    options = _OPTIONS.get(data["metric"], ())
    for key in data.get("options", {}):
        if key not in options:
            raise BadFileError(f"{where}: options: {key!r}: expected {options or 'none'}")
    languages = data.get("languages", [])
    if not isinstance(languages, list) or not all(isinstance(code, str) for code in languages):
        raise BadFileError(f"{where}: languages: expected a list of codes")
    if not any(style in data for style in STYLES):
        raise BadFileError(f"{where}: expected base, chat or both")
    for style in STYLES:
        form = data.get(style, {"template": ""})
        stop = form.get("stop", []) if isinstance(form, dict) else None
        if (
            not isinstance(form, dict)
            or not set(form) <= {"template", "stop"}
            or not isinstance(form.get("template"), str)
            or not isinstance(stop, list)
            or not all(isinstance(s, str) and s for s in stop)
        ):
            raise BadFileError(f"{where}: {style}: expected template: FILE and stop: [TEXT, ...]")


def _shown(found: Any) -> str:
    """Return a value for an error; a list of aliases may be far larger than its file."""
    return repr(found) if isinstance(found, str | int | float) else type(found).__name__


def _is_strings(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in found.items()
    )


def _task(
    asked: str,
    where: str,
    data: dict[str, Any],
    given: dict[str, str],
    folders: list[Path | None],
) -> EvalTask:
    languages = given.pop("languages", None)
    variables = dict(data.get("variables", {}))
    for name in given:
        if name not in variables:
            known = ", ".join([*variables, "languages"])
            raise VocabTailorError(f"task {asked!r}: {name}: expected one of {known}")
    variables |= given
    forms = {}
    for style in STYLES:
        if style in data:
            name = data[style]["template"]
            text = _template_text(name, folders)
            template = Template.parse(text, data["output"], variables, f"{where}: {name}")
            forms[style] = Form(template, tuple(data[style].get("stop", ())))
    return EvalTask(
        name=asked,
        metric=data["metric"],
        output=data["output"],
        shots=data.get("shots", 0),
        max_tokens=data.get("max_tokens", 128),
        forms=cast(Mapping[Style, Form], forms),
        languages=tuple(languages.split("+") if languages else data.get("languages", ())),
        options=data.get("options", {}),
    )


def _template_text(name: str, folders: list[Path | None]) -> str:
    """Return a template: of the first folder that has it, else the package's."""
    for folder in folders:
        if folder is not None and (folder / name).is_file():
            return read_text(folder / name, limit=_MAX_BYTES)
    own = importlib.resources.files(__package__) / "templates" / name
    if "/" in name or not own.is_file():
        places = [str(f) for f in folders if f is not None]
        raise BadFileError(f"{name}: no such template in {', '.join([*places, 'the package'])}")
    return own.read_text(encoding="utf-8")
