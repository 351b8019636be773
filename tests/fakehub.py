"""A hub of models on the loopback interface, with the few answers that a download needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def fake_hub(repos: Mapping[str, Mapping[str, Path]]) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories: files by name; give the address and a list of what is asked."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            for repo, files in repos.items():
                if path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/{REVISION}"):
                    siblings = [{"rfilename": name} for name in files]
                    told = {"id": repo, "sha": REVISION, "siblings": siblings}
                    return self.answer(json.dumps(told).encode(), "application/json")
                for name, file in files.items():
                    if path == f"/{repo}/resolve/{REVISION}/{name}":
                        return self.answer(file.read_bytes(), "application/octet-stream")
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("X-Error-Message", "Repository not found")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def answer(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
