"""Answers to completions: from a request to its slot, and back piece by piece."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from vocabtailor_gguf.serve.answers import END, Answer, event
from vocabtailor_gguf.serve.embeddings import Embedder
from vocabtailor_gguf.serve.errors import ApiError, api_error
from vocabtailor_gguf.serve.metrics import Metrics
from vocabtailor_gguf.serve.plan import Plan
from vocabtailor_gguf.serve.pool import Pool
from vocabtailor_gguf.serve.preset import DEFAULT_SET, Preset
from vocabtailor_gguf.serve.schema import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Generation,
)
from vocabtailor_gguf.serve.work import Piece, Work, start


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a server answers.

    Attributes:
        models: Names of models, and what each means; the first is the default.
        sets: Names of token sets.
        api_key: What clients must show; None for nothing.
        cors: Origins whose pages may ask.
        hosts: Names that requests may be for; none for all.
        max_body: Bytes of a request.
        save_every: After how long what slots have learned is kept again, in s.
    """

    models: Mapping[str, Preset]
    sets: frozenset[str] = frozenset({DEFAULT_SET})
    api_key: str | None = None
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    max_body: int = 4 << 20
    save_every: float = 300.0


class Server:
    """What the routes share.

    Args:
        pool: The slots.
        settings: How it answers.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self.pool = pool
        self.settings = settings
        self.metrics = Metrics(pool)
        self.llm = pool.slots[0].llm  # for its tokenizer, which any thread may use
        self.embedder = Embedder(self.llm, pool.limit)
        self.began = int(time.time())

    def model(self, name: str | None) -> str:
        """Return a model's name; by default the first one's.

        Raises:
            ApiError: There is no such model.
        """
        if name is None:
            return next(iter(self.settings.models))
        if name not in self.settings.models:
            raise ApiError(
                404, f"there is no model {name!r}, only {', '.join(self.settings.models)}",
                code="model_not_found", param="model",
            )  # fmt: skip
        return name

    def preset(self, body: Generation) -> Preset:
        """Return what a request is generated with: its model's preset, or what it wants instead.

        Raises:
            ApiError: There is no such token set, or an audit in a mode that has none.
        """
        own, extra = self.settings.models[self.model(body.model)], body.vocabtailor
        name = extra.token_set or own.token_set
        if name not in self.settings.sets:
            known = ", ".join(sorted(self.settings.sets))
            raise ApiError(
                400, f"there is no token set {name!r}, only {known}",
                param="vocabtailor.token_set",
            )  # fmt: skip
        mode = extra.mode or own.mode
        audit = own.audit if mode == "tailored" else 0.0
        audit = audit if extra.audit is None else extra.audit
        if audit and mode != "tailored":
            raise ApiError(
                400, f"mode {mode} has no audits, only tailored", param="vocabtailor.audit"
            )
        return Preset(name, mode, audit)

    async def answer(
        self,
        request: Request,
        body: CompletionRequest | ChatRequest,
        plan: Callable[[], Plan],
        *,
        is_chat: bool,
    ) -> Response:
        """Answer a completion; its first part is there before the headers go out."""
        arrived = time.perf_counter()
        self.pool.check_room()
        answer = Answer(
            model=self.model(body.model),
            plan=await run_in_threadpool(_planned, plan),
            is_chat=is_chat,
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
        )
        if body.stream:
            return await _unless_gone(request, self._stream(answer, arrived))
        return await _unless_gone(request, self._whole(answer, arrived))

    async def embed(self, request: Request, body: EmbeddingRequest) -> Response:
        """Answer a request for embeddings."""
        return await _unless_gone(request, self._embedded(self.model(body.model), body))

    async def _embedded(self, model: str, body: EmbeddingRequest) -> Response:
        try:
            return JSONResponse(await self.embedder.answer(model, body))
        except Exception as e:
            raise api_error(e) from e

    async def _whole(self, answer: Answer, arrived: float) -> Response:
        work = await start(answer.plan, self.pool, arrived, self.metrics.finished)
        try:
            pieces = [piece async for piece in work.pieces()]
        except Exception as e:
            raise api_error(e) from e
        finally:
            work.cancel()
        assert work.summary is not None
        return JSONResponse(answer.whole(pieces, work.summary))

    async def _stream(self, answer: Answer, arrived: float) -> Response:
        work = await start(answer.plan, self.pool, arrived, self.metrics.finished)
        pieces = work.pieces()
        try:
            first = await anext(pieces)
        except BaseException as e:
            work.cancel()
            if isinstance(e, Exception):
                raise api_error(e) from e
            raise
        return _Events(work, _events(answer, work, first, pieces))


def _planned(plan: Callable[[], Plan]) -> Plan:
    try:
        return plan()
    except Exception as e:
        raise api_error(e) from e


async def _events(
    answer: Answer, work: Work, first: Piece, pieces: AsyncIterator[Piece]
) -> AsyncIterator[bytes]:
    try:
        yield event(answer.chunk(first))
        async for piece in pieces:
            yield event(answer.chunk(piece))
    except Exception as e:
        yield event(api_error(e).body())
        return
    if answer.include_usage:
        assert work.summary is not None
        yield event(answer.last(work.summary))
    yield END


class _Events(StreamingResponse):
    """A stream of events; whatever ends it ends the work."""

    def __init__(self, work: Work, events: AsyncIterator[bytes]) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._work.cancel()


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """Return an answer, unless the client goes before it is there: then it is cancelled."""
    task = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return Response(status_code=499)  # nobody reads it; the log and the metrics do
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
