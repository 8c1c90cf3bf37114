"""An engine to measure: the leanest HTTP client that both sides are asked through, and its processes' memory."""

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

VERSION = "/v1.47"


class Engine:
    """An engine behind a unix socket. One connection for each object: make one for each thread."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._buffer = b""

    def another(self) -> "Engine":
        """A connection of its own to the same engine."""
        return Engine(self.name, self.path)

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, path: str, body: Any = None, *, expect: int | None = None) -> Any:
        """One request; the decoded reply. Fails on a status of 400 and more."""
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        head = f"{method} {VERSION}{path} HTTP/1.1\r\nHost: engine\r\nContent-Type: {kind}\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        status, reply = self._read_reply()
        if status >= 400 or (expect is not None and status != expect):
            raise RuntimeError(f"{self.name}: {method} {path}: {status} {reply.decode(errors='replace')[:300]}")
        return json.loads(reply) if reply[:1] in (b"{", b"[") and b"\r\n{" not in reply else reply

    def upgrade(self, path: str, body: Any) -> bytes:
        """A hijacked request on a connection of its own; everything the engine sends until it ends."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(self.path)
            payload = json.dumps(body).encode()
            head = (
                f"POST {VERSION}{path} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
            )
            raw.sendall(head.encode() + payload)
            reply = b""
            while piece := raw.recv(65536):
                reply += piece
        if not reply.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
            raise RuntimeError(f"{self.name}: {path}: {reply[:300]!r}")
        return reply.partition(b"\r\n\r\n")[2]

    def pid(self) -> int:
        """The engine's process, as the socket tells it (SO_PEERCRED)."""
        return int(struct.unpack("iii", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    def _read_reply(self) -> tuple[int, bytes]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
        head, self._buffer = self._buffer[:end].decode(), self._buffer[end + 4 :]
        status = int(head[9:12])
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
        if "chunked" in headers.get("transfer-encoding", ""):
            return status, self._read_chunks()
        return status, self._take(int(headers.get("content-length", "0")))

    def _read_chunks(self) -> bytes:
        body = b""
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                self._fill()
            size = int(self._buffer[:end], 16)
            self._buffer = self._buffer[end + 2 :]
            body += self._take(size)
            self._take(2)
            if not size:
                return body

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _fill(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            raise RuntimeError(f"{self.name}: closed the connection")
        self._buffer += data


def pss(pid: int) -> int:
    """Proportional set size in bytes (proc_pid_smaps_rollup(5)); 0 when the process has gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def available() -> int:
    """MemAvailable, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def processes(*fragments: str) -> list[int]:
    """Processes whose command line contains any of `fragments`."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(fragment in line for fragment in fragments):
            found.append(int(name))
    return found
