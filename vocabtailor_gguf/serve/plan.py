"""What a request's work is: which generations, from which prompt, with which arguments."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.serve import tools
from vocabtailor_gguf.serve.errors import ApiError
from vocabtailor_gguf.serve.grammars import grammar_of
from vocabtailor_gguf.serve.preset import Preset
from vocabtailor_gguf.serve.schema import (
    ChatRequest,
    CompletionRequest,
    Generation,
    NamedTool,
    Prompt,
)
from vocabtailor_gguf.serve.watch import View, Watch

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "frequency_penalty",
    "presence_penalty", "repeat_penalty", "stop", "logit_bias",
)  # fmt: skip
_MAX_TOKENS = 16  # of a completion that says nothing, as OpenAI has it
_SEEDS = 2**32 - 1  # this one stands for a random one in llama.cpp, and is -1 for clients
_MOST_HELD = 64  # tokens of a stream that are no text; a character has four bytes at most


@dataclasses.dataclass(frozen=True)
class Run:
    """One generation, which gives one choice of the answer.

    Attributes:
        index: Of the choice.
        call: Returns an answer of ``llama_cpp.Llama``, or an iterator of its chunks.
    """

    index: int
    call: Callable[[View], Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The generations of a request, one after another on one slot.

    Attributes:
        prompt: Token ids of the first one.
        runs: The generations.
        n_prompts: Prompts; there are `n` choices of each.
        preset: What the slot shall generate with.
        seed: Of the first choice of each prompt.
        anew: Whether each prompt is decoded from its beginning.
        n_top: Of a chat with log-probabilities: the likeliest tokens that are told for each.
        most_held: Tokens without text after which a stream ends, None for no limit.
    """

    prompt: tuple[int, ...]
    runs: tuple[Run, ...]
    n_prompts: int
    preset: Preset
    seed: int
    anew: bool = False
    n_top: int = 0
    most_held: int | None = None


class _Echoed(list[int]):
    """Token ids that ``llama_cpp.Llama`` can put before a completion, as it does with a text.

    Args:
        ids: Token ids.
        text: What they say.
    """

    def __init__(self, ids: Sequence[int], text: str) -> None:
        super().__init__(ids)
        self._text = text

    def __add__(self, other: Any) -> Any:
        """Return the prompt with more ids, or its text with a completion's."""
        return self._text + other if isinstance(other, str) else super().__add__(other)


class _Seen(Exception):
    """Carries a prompt out of upstream's chat code."""


class _Looking(View):
    """A model that is only asked which prompt a chat gives; it generates nothing."""

    def create_completion(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise what was to be completed."""
        raise _Seen(kwargs["prompt"])


def plan_completion(llm: TailoredLlama, body: CompletionRequest, preset: Preset) -> Plan:
    """Return the plan of a completion.

    Raises:
        ApiError: Something is asked that there is not.
    """
    if body.suffix:
        _refuse("suffix", "the model cannot fill in")
    if body.best_of not in (None, body.n):
        _refuse("best_of", f"found {body.best_of}, expected n, which is {body.n}")
    prompts = [_not_empty(llm, prompt) for prompt in _prompts(body.prompt)]
    if body.echo and body.stream:
        _refuse("echo", "not in a stream")
    ids = [_tokens(llm, p) for p in prompts]
    for tokens in ids:
        _check_prompt(llm, tokens)
    arguments = _arguments(llm, body) | {
        "echo": body.echo,
        "logprobs": body.logprobs,
        "max_tokens": body.max_tokens or _MAX_TOKENS,
    }
    seed = _seed(body)
    runs = []
    for i, prompt in enumerate(prompts):
        if body.echo and not isinstance(prompt, str):
            prompt = _Echoed(prompt, llm.detokenize(prompt).decode("utf-8", "ignore"))
        for j in range(body.n):
            given = {**arguments, "prompt": prompt, "seed": (seed + j) % _SEEDS}
            runs.append(Run(i * body.n + j, _call("create_completion", given)))
    return Plan(
        tuple(ids[0]),
        tuple(runs),
        n_prompts=len(prompts),
        preset=preset,
        seed=seed,
        anew=not body.cache_prompt,
        most_held=_most_held(body) if body.stream else None,
    )


def plan_chat(llm: TailoredLlama, body: ChatRequest, preset: Preset) -> Plan:
    """Return the plan of a chat completion; errors as of `plan_completion`."""
    arguments = _arguments(llm, body)
    if body.top_logprobs and not body.logprobs:
        _refuse("top_logprobs", "only where logprobs is true")
    if body.logprobs:
        arguments |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    limits = [n for n in (body.max_completion_tokens, body.max_tokens) if n is not None]
    if limits:
        arguments["max_tokens"] = min(limits)
    grammar = grammar_of(llm, body.response_format)
    if grammar is not None:
        arguments["grammar"] = grammar
    arguments["messages"] = [message.plain() for message in body.messages]
    chooses = _add_tools(llm, body, arguments)
    is_named = "tool_choice" in arguments
    try:
        _Looking(llm, Watch()).create_chat_completion(**arguments)
    except _Seen as e:
        (prompt,) = e.args
    _check_prompt(llm, prompt)
    seed = _seed(body)
    runs = []
    for j in range(body.n):
        given = {**arguments, "seed": (seed + j) % _SEEDS}
        if chooses:
            runs.append(Run(j, _choice(given)))
        elif is_named and body.stream:
            runs.append(Run(j, _named(given)))
        else:
            runs.append(Run(j, _call("create_chat_completion", given)))
    return Plan(
        tuple(prompt),
        tuple(runs),
        n_prompts=1,
        preset=preset,
        seed=seed,
        anew=not body.cache_prompt,
        n_top=body.top_logprobs or 0,
        most_held=_most_held(body) if body.stream and not chooses else None,
    )


def _call(name: str, arguments: dict[str, Any]) -> Callable[[View], Any]:
    return lambda view: getattr(view, name)(**arguments)


def _named(arguments: dict[str, Any]) -> Callable[[View], Any]:
    call = _call("create_chat_completion", arguments)
    return lambda view: tools.named_once(call(view))


def _choice(arguments: dict[str, Any]) -> Callable[[View], Any]:
    whole = _call("create_chat_completion", {**arguments, "stream": False})

    def call(view: View) -> Any:
        answer = tools.with_calls(whole(view))
        return tools.as_chunks(answer) if arguments["stream"] else answer

    return call


def _refuse(field: str, why: str) -> NoReturn:
    raise ApiError(400, f"{field}: {why}", param=field, code="unsupported")


def _arguments(llm: TailoredLlama, body: Generation) -> dict[str, Any]:
    """Return the arguments that were given; the model has its own defaults for the others."""
    outside = max(body.logit_bias or {}, default=0)
    if outside >= llm.n_vocab():
        _refuse("logit_bias", f"token id {outside}, expected 0 to {llm.n_vocab() - 1}")
    given = {name: getattr(body, name) for name in _SAMPLING if name in body.model_fields_set}
    given = {name: value for name, value in given.items() if value is not None}
    return given | {"stream": body.stream}


def _seed(body: Generation) -> int:
    """Return the seed of the first choice, by default a random one; the next have the next."""
    seed = _SEEDS if body.seed is None else body.seed % 2**32
    return secrets.randbelow(_SEEDS) if seed == _SEEDS else seed


def _most_held(body: Generation) -> int:
    """Return how many tokens may be held back: what may be the beginning of a stop string is."""
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return _MOST_HELD + max((len(stop.encode("utf-8", "replace")) for stop in stops), default=0)


def _prompts(prompt: Prompt) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)


def _not_empty(llm: TailoredLlama, prompt: str | list[int]) -> str | list[int]:
    """Return a prompt; an empty one is the token that begins texts, where nothing adds it."""
    if prompt != "" or llm._model.add_bos_token():
        return prompt
    if llm.token_bos() < 0:
        _refuse("prompt", "it is empty, and the model has no token that begins texts")
    return [llm.token_bos()]


def _tokens(llm: TailoredLlama, prompt: str | list[int]) -> list[int]:
    if not isinstance(prompt, str):
        return prompt
    add_bos = bool(llm._model.add_bos_token())
    ids: list[int] = llm.tokenize(prompt.encode("utf-8"), add_bos=add_bos, special=True)
    return ids


def _check_prompt(llm: TailoredLlama, tokens: Sequence[int]) -> None:
    n, room = len(tokens), llm.n_ctx()
    if n >= room:
        raise ApiError(
            400, f"the prompt has {n} tokens, expected fewer than the context's {room}",
            code="context_length_exceeded",
        )  # fmt: skip
    if max(tokens) >= llm.n_vocab():
        raise ApiError(400, f"token id {max(tokens)}, expected 0 to {llm.n_vocab() - 1}")


def _add_tools(llm: TailoredLlama, body: ChatRequest, arguments: dict[str, Any]) -> bool:
    """Change the arguments of a chat so that it has its tools; return whether it chooses."""
    wanted = tools.wanted_tools(body)
    if body.tools:
        arguments["messages"] = tools.plain_calls(arguments["messages"])
    must = body.tool_choice == "required" or isinstance(body.tool_choice, NamedTool)
    if not wanted:
        return False
    if must and len(wanted) == 1:
        arguments |= tools.named_arguments(llm, wanted[0])
        return False
    arguments["messages"] = tools.told_messages(arguments["messages"], wanted, may_answer=not must)
    arguments |= tools.choice_arguments(llm, wanted, may_answer=not must)
    return True
