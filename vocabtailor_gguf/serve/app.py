"""The application: routes, and what stands before them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vocabtailor_gguf.serve.errors import ApiError, add_handlers
from vocabtailor_gguf.serve.limits import BodyLimit, HostLimit
from vocabtailor_gguf.serve.metrics import Metrics
from vocabtailor_gguf.serve.plan import plan_chat, plan_completion
from vocabtailor_gguf.serve.pool import Pool
from vocabtailor_gguf.serve.schema import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    TokenizeRequest,
)
from vocabtailor_gguf.serve.server import Server, Settings

# the page is one file, asks this server only, and stands in no frame
_PAGE_MAY = (
    "default-src 'none'; connect-src 'self'; img-src data:; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def _server(request: Request) -> Server:
    found: Server = request.app.state.server
    return found


def _authorised(request: Request) -> None:
    """Check the API key.

    Raises:
        ApiError: It is missing or wrong.
    """
    key = _server(request).settings.api_key
    if key is None:
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(
        given.strip().encode("latin-1"), key.encode("utf-8")
    ):
        raise ApiError(
            401, "a valid API key is needed: Authorization: Bearer KEY",
            code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


TheServer = Annotated[Server, Depends(_server)]
public = APIRouter()
guarded = APIRouter(dependencies=[Depends(_authorised)])


@public.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> HTMLResponse:
    """Return a page to try the server with."""
    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE_MAY})


@public.get("/health")
async def health() -> dict[str, str]:
    """Tell that the server runs."""
    return {"status": "ok"}


@guarded.get("/metrics")
async def metrics(server: TheServer) -> Response:
    """Return counters for Prometheus."""
    return Response(server.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _told(server: Server, name: str) -> dict[str, Any]:
    llm, preset = server.llm, server.settings.models[name]
    return {
        "id": name,
        "object": "model",
        "created": server.began,
        "owned_by": "vocabtailor",
        "vocabtailor": {
            "mode": preset.mode,
            "token_set": preset.token_set,
            "n_ctx": llm.n_ctx(),
            "n_vocab": llm.n_vocab(),
            "slots": len(server.pool.slots),
        },
    }


@guarded.get("/v1/models")
async def models(server: TheServer) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [_told(server, name) for name in server.settings.models]}


@guarded.get("/v1/models/{name:path}")  # an alias may have slashes, as names of the hub have
async def model(name: str, server: TheServer) -> dict[str, Any]:
    """Tell of one model."""
    return _told(server, server.model(name))


@guarded.post("/v1/completions")
async def completions(request: Request, body: CompletionRequest, server: TheServer) -> Response:
    """Complete a text."""
    preset = server.preset(body)
    return await server.answer(
        request, body, lambda: plan_completion(server.llm, body, preset), is_chat=False
    )


@guarded.post("/v1/chat/completions")
async def chat_completions(request: Request, body: ChatRequest, server: TheServer) -> Response:
    """Answer a chat."""
    preset = server.preset(body)
    return await server.answer(
        request, body, lambda: plan_chat(server.llm, body, preset), is_chat=True
    )


@guarded.post("/v1/embeddings")
async def embeddings(request: Request, body: EmbeddingRequest, server: TheServer) -> Response:
    """Return embeddings of texts."""
    return await server.embed(request, body)


@guarded.post("/v1/tokenize")
async def tokenize(body: TokenizeRequest, server: TheServer) -> dict[str, Any]:
    """Return the token ids of a text."""
    return {"tokens": await run_in_threadpool(_tokenized, server, body)}


def _tokenized(server: Server, body: TokenizeRequest) -> list[Any]:
    ids: list[int] = server.llm.tokenize(
        body.content.encode("utf-8"), add_bos=body.add_special, special=body.parse_special
    )
    if not body.with_pieces:
        return ids
    detokenize = server.llm.detokenize
    return [{"id": t, "piece": detokenize([t], special=True).decode("utf-8", "replace")}
            for t in ids]  # fmt: skip


class _Counted:
    """Counts answers by path and status.

    Args:
        app: What is behind it.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # paths that there are, so that nobody can make the table grow
                route = scope.get("route")
                self._metrics.answered(getattr(route, "path", "other"), message["status"])
            await send(message)

        await self._app(scope, receive, counting)


async def _save_learned(pool: Pool, seconds: float) -> None:
    """Keep what slots have learned from time to time, lest a kill take all of it."""
    while True:
        await asyncio.sleep(seconds)
        await run_in_threadpool(pool.save_learned)


def create_app(pool: Pool, settings: Settings) -> FastAPI:
    """Return the application of a pool of slots.

    Args:
        pool: The slots; closed by the caller after the server has ended.
        settings: How it answers.
    """
    server = Server(pool, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        saving = asyncio.create_task(_save_learned(pool, settings.save_every))
        yield
        saving.cancel()
        await run_in_threadpool(server.embedder.close)

    app = FastAPI(title="vocabtailor", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.server = server
    add_handlers(app)
    app.include_router(public)
    app.include_router(guarded)
    # the last one that is added sees a request first
    app.add_middleware(BodyLimit, n_bytes=settings.max_body)
    app.add_middleware(HostLimit, hosts=settings.hosts)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # clients send headers of their own, such as x-stainless-lang
        )
    app.add_middleware(_Counted, metrics=server.metrics)
    return app
