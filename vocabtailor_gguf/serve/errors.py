"""Errors as OpenAI's interface writes them."""

from __future__ import annotations

import logging
from typing import Any

import jinja2
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError

logger = logging.getLogger(__name__)

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    501: "not_supported_error",
}
# what the text features raise for a prompt, a template, a schema or a bias they cannot take
_USER_ERRORS = (ValueError, TypeError, KeyError, RecursionError, jinja2.TemplateError)


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: Of HTTP.
        message: What is wrong, for a person.
        code: For a program.
        param: The field that is wrong.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error body."""
        kind = _TYPES.get(self.status)
        if kind is None:
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
        message = self.message.encode("utf-8", "replace").decode("utf-8")
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def queue_full(n_waiting: int) -> ApiError:
    """Return the answer to a request that finds too many before it."""
    return ApiError(
        429, f"all slots are busy and {n_waiting} requests wait",
        code="queue_full", headers={"Retry-After": "1"},
    )  # fmt: skip


def api_error(e: BaseException) -> ApiError:
    """Return how an exception of the text features is answered; an unknown one is logged."""
    if isinstance(e, ApiError):
        return e
    if isinstance(e, UnsupportedError):
        return ApiError(501, str(e), code="not_supported")
    if isinstance(e, VocabTailorError):
        return ApiError(400, str(e))
    if isinstance(e, _USER_ERRORS):
        return ApiError(400, f"{type(e).__name__}: {e}"[:500])
    logger.error("a request failed", exc_info=e)
    return ApiError(500, "internal error; the server's log has more")


def _field(error: dict[str, Any], body: Any) -> str | None:
    """Return the field that pydantic finds wrong; its names of a union's types are no fields."""
    parts, wrong = error["loc"][1:], error["input"]
    names: list[str] = []
    for i, part in enumerate(parts):
        is_last = i == len(parts) - 1
        is_lacking = error["type"] == "missing" and is_last
        if is_last and not is_lacking and body is wrong:
            break  # the type's name, even where the value has a field of that name
        if isinstance(part, int) and isinstance(body, list) and part < len(body):
            body = body[part]
        elif isinstance(body, dict) and part in body:
            body = body[part]
        elif not is_lacking:
            continue
        names.append(str(part))
    return ".".join(names) or None


def add_handlers(app: FastAPI) -> None:
    """Let every error of an application have OpenAI's body."""

    async def api(request: Request, e: Exception) -> JSONResponse:
        return api_error(e).response()

    async def validation(request: Request, e: Exception) -> JSONResponse:
        assert isinstance(e, RequestValidationError)
        first = e.errors()[0]
        where = _field(first, e.body)
        if first["type"] == "json_invalid":
            told = f"not JSON: {first['ctx']['error']}, character {first['loc'][-1]}"
            return ApiError(400, told, code="json_invalid").response()
        message = f"{where}: {first['msg']}" if where else str(first["msg"])
        return ApiError(400, message, code=str(first["type"]), param=where).response()

    async def http(request: Request, e: Exception) -> JSONResponse:
        assert isinstance(e, HTTPException)
        return ApiError(e.status_code, str(e.detail), headers=dict(e.headers or {})).response()

    app.add_exception_handler(ApiError, api)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, api)
