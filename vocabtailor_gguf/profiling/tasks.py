"""Task presets: which fields, which stages, and how a prompt and its answer are written."""

from __future__ import annotations

import dataclasses

from vocabtailor_gguf.errors import VocabTailorError


@dataclasses.dataclass(frozen=True)
class Task:
    """How a record of a corpus becomes a prompt and an output.

    Attributes:
        input_field: Field of the text that is given, or None for data without inputs.
        output_field: Field of the text that is wanted, or None where nothing is profiled.
        prompt: Template of what precedes the output; ``{input}`` is the input.
        output: Template of the output; ``{output}`` is its text. Spaces and line ends matter,
            because " word" and "word" are different tokens.
        input_aware: Leave out tokens that the prompt brings anyway (stage 1).
        static: Whether the task needs a static set at all.
        extra_fields: More fields of the prompt, which the template names.
        stop: Texts that end an answer of a model that has been shown examples.
    """

    input_field: str | None
    output_field: str | None
    prompt: str = "{input}"
    output: str = "{output}"
    input_aware: bool = True
    static: bool = True
    extra_fields: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


TASKS: dict[str, Task] = {
    "translation": Task(
        "source", "target", "Source: {input}\nTarget:", " {output}\n", stop=("\n",)
    ),
    "summarisation": Task("document", "summary", "{input}\nSummary:", " {output}\n", stop=("\n",)),
    "extraction": Task(
        "context",
        "answer",
        "{input}\nQuestion: {question}\nAnswer:",
        " {output}\n",
        static=False,
        extra_fields=("question",),
        stop=("\n",),
    ),
    "code": Task("prompt", "completion", "{input}", "{output}\n", stop=('"""',)),
    "maths": Task(
        "question", "answer", "Question: {input}\nAnswer:", " {output}\n", stop=("Question:",)
    ),
    "text": Task(None, "text", "", "{output}", input_aware=False),
}


def get_task(name: str, *, input_field: str | None = None, output_field: str | None = None) -> Task:
    """Return a preset, with other field names where they are given.

    Raises:
        VocabTailorError: There is no such preset.
    """
    if name not in TASKS:
        raise VocabTailorError(f"task {name!r}: expected one of {', '.join(TASKS)}")
    task = TASKS[name]
    if input_field is not None:
        prompt = task.prompt if "{input}" in task.prompt else "{input}\n"
        task = dataclasses.replace(task, input_field=input_field, prompt=prompt, input_aware=True)
    if output_field is not None:
        task = dataclasses.replace(task, output_field=output_field)
    return task
