"""What is checked before a request is read: its size, and which host it means."""

from __future__ import annotations

import ipaddress
import re
import socket

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vocabtailor_gguf.serve.errors import ApiError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class BodyLimit:
    """Reads bodies up to a limit before the application sees them; answers 413 beyond it.

    Args:
        app: What is behind it.
        n_bytes: The limit.
    """

    def __init__(self, app: ASGIApp, n_bytes: int) -> None:
        self._app = app
        self._n_bytes = n_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = declared.isdigit() and int(declared[:20]) > self._n_bytes
        parts: list[bytes] = []
        more, n = not too_large, 0
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            n += len(parts[-1])
            too_large = n > self._n_bytes
            more = message.get("more_body", False) and not too_large
        if too_large:
            error = ApiError(413, f"the body has more than {self._n_bytes} bytes", code="too_large")
            error.headers = {"Connection": "close"}
            await error.response()(scope, receive, send)
            return
        body = [b"".join(parts)]

        async def replay() -> Message:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            return await receive()

        await self._app(scope, replay, send)


def hosts_of(address: str) -> tuple[str, ...]:
    """Return the names that requests may be for where a server listens on an address.

    Returns:
        Those of this machine where nobody else can reach the address, else none, which is all.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(address or None, 0)}
    except (OSError, UnicodeError):
        return ()
    if not address or not all(ipaddress.ip_address(one).is_loopback for one in found):
        return ()
    return tuple(sorted({*_LOOPBACK, address.lower(), *found}))


class HostLimit:
    """Answers only requests for hosts that it knows.

    A page of another site can let its own name point to this machine; the browser then takes its
    requests for same-origin ones, but they carry that name.

    Args:
        app: What is behind it.
        hosts: The names, without ports; none for all.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and self._hosts:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            name = re.sub(r":\d*$", "", host).strip("[]").lower()
            if name not in self._hosts:
                error = ApiError(421, f"this server does not answer for the host {name[:100]!r}")
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)
