"""What clients may ask; every number is within what native code takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from vocabtailor_gguf.runtime.owner import Mode

Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Prompt = str | Tokens | Annotated[list[str] | list[Tokens], Field(min_length=1, max_length=64)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Extra(BaseModel):
    """The field ``vocabtailor``: what OpenAI's interface has no word for.

    Attributes:
        mode: Instead of the model's.
        token_set: Instead of the model's; a name of ``--alias``, or ``"default"`` for that of
            ``--token-set``.
        audit: In mode ``"tailored"``, the share of steps that are audited.
    """

    model_config = ConfigDict(extra="forbid")

    mode: Mode | None = None
    token_set: str | None = None
    audit: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool = False


class Generation(BaseModel):
    """What completions and chat completions have in common; unknown fields are ignored.

    Fields that are not set keep the defaults of ``llama_cpp.Llama``.
    """

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        """Take null for a field that is not there, as OpenAI's interface does."""
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data

    temperature: float = Field(0.8, ge=0, le=100, allow_inf_nan=False)
    top_p: float = Field(0.95, ge=0, le=1, allow_inf_nan=False)
    top_k: int = Field(40, ge=-1, lt=2**31)
    min_p: float = Field(0.05, ge=0, le=1, allow_inf_nan=False)
    typical_p: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    frequency_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    presence_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    repeat_penalty: float = Field(1.0, ge=0.01, le=100, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    logit_bias: (
        Annotated[
            dict[Token, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]],
            Field(max_length=1024),
        ]
        | None
    ) = None
    n: int = Field(1, ge=1, le=16)
    stream: bool = False
    stream_options: StreamOptions | None = None
    cache_prompt: bool = True  # llama.cpp's name: keep what the slot's text begins with alike
    vocabtailor: Extra = Field(default_factory=lambda: Extra())


class CompletionRequest(Generation):
    """The body of /v1/completions."""

    prompt: Prompt
    echo: bool = False
    best_of: int | None = Field(None, ge=1, le=16)
    suffix: str | None = None
    logprobs: int | None = Field(None, ge=0, le=20)


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="allow")  # templates know more fields, such as `name`

    role: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    content: str | list[TextPart] | None = None

    def plain(self) -> dict[str, Any]:
        """Return what chat templates take."""
        out = self.model_dump(exclude_none=True)
        if not isinstance(self.content, str):
            out["content"] = "".join(part.text for part in self.content or [])
        return out


class Function(BaseModel):
    """A function that a tool is."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str = ""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}


class Tool(BaseModel):
    """A tool."""

    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    """The name of a function."""

    name: str


class NamedTool(BaseModel):
    """The choice of one tool."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(BaseModel):
    """A schema that an answer obeys."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = "answer"
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """The form of an answer; a `schema` beside json_object is llama_cpp's way to give one."""

    model_config = ConfigDict(populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ChatRequest(Generation):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


class EmbeddingRequest(BaseModel):
    """The body of /v1/embeddings."""

    model: str | None = None
    input: str | Tokens | Annotated[list[str] | list[Tokens], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"


class TokenizeRequest(BaseModel):
    """The body of /v1/tokenize, as llama.cpp's server has it."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
