"""An engine that answers just enough for `create`, and keeps what it was asked."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class EngineDouble(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, version: str = "1.50") -> None:
        self.version = version
        self.requests: list[tuple[str, str, Any]] = []
        super().__init__(str(path), _Handler)
        self.address = f"unix://{path}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def taken(self) -> list[tuple[str, str, Any]]:
        """The requests since the last call, _ping left out."""
        taken, self.requests = [entry for entry in self.requests if "_ping" not in entry[1]], []
        return taken


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EngineDouble

    def _answer(self) -> None:
        body = self._body()
        self.server.requests.append((self.command, self.path, json.loads(body) if body.startswith(b"{") else None))
        created = "/create" in self.path
        answer = b'{"Id":"0123456789abcdef","Warnings":[]}' if created else b"{}"
        asked = self.path.split("/")[1].removeprefix("v")
        too_new = asked[:2] == "1." and float(asked[2:]) > float(self.server.version[2:])
        if too_new:
            answer = b'{"message":"client version is too new"}'
        self.send_response(400 if too_new else 201 if created else 200)
        self.send_header("Api-Version", self.server.version)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, *_arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"
