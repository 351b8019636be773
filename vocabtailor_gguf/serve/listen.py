"""Runs an application until it is told to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI


class Listener(uvicorn.Server):  # type: ignore[misc]
    """Serves until SIGTERM or SIGINT, then finishes what has begun.

    Args:
        app: The application.
        host: Address.
        port: 0 for a free one.
        drain: How long to wait for what has begun, in s.
        ready: Called with the address once it listens.
    """

    def __init__(
        self,
        app: FastAPI,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        drain: int = 30,
        ready: Callable[[str], None] = lambda url: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                timeout_graceful_shutdown=drain,
                server_header=False,
                ws="none",
            )
        )
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and tell where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
