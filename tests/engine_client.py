"""How tests talk to an engine: plain HTTP, raw sockets, the docker client as a process, with a terminal or without."""

import contextlib
import http.client
import json
import os
import pty
import select
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from covered.answers import complaints


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])

    @property
    def lines(self) -> list[Any]:
        """The documents of a stream of JSON."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """The HTTP API over a unix socket, one connection kept alive. Every answer is held against the API's schema."""

    def __init__(self, host: str) -> None:
        self.path = host.removeprefix("unix://")
        self._connection = _UnixConnection(self.path)

    def request(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        self._connection.request(method, target.replace('"', "%22"), body, dict(headers or {}))
        response = self._connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        wrong = complaints(method, target, *answer)
        assert not wrong, "\n".join(wrong)
        return answer

    def get(self, target: str) -> Answer:
        return self.request("GET", target)

    def post(self, target: str, document: Any = None) -> Answer:
        if document is None:
            return self.request("POST", target)
        return self.request("POST", target, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def delete(self, target: str) -> Answer:
        return self.request("DELETE", target)

    def create(self, name: str, **config: Any) -> str:
        """Create a container; its id."""
        answer = self.post(f"/containers/create?name={name}", config)
        assert answer.status == 201, answer.body
        return str(answer.json["Id"])

    def run(self, name: str, **config: Any) -> str:
        """Create and start a container; its id."""
        id = self.create(name, **config)
        answer = self.post(f"/containers/{id}/start")
        assert answer.status == 204, answer.body
        return id

    def wait(self, name: str, condition: str = "not-running") -> int:
        """Its exit code."""
        return int(self.post(f"/containers/{name}/wait?condition={condition}").json["StatusCode"])

    def hijack(self, target: str, body: bytes = b"", *, upgrade: bool = True) -> "Hijacked":
        """A request that takes its connection over."""
        return Hijacked(self.path, target, body, upgrade=upgrade)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Hijacked:
    """A raw connection; `head` is the answer's head."""

    def __init__(self, path: str, target: str, body: bytes = b"", *, upgrade: bool = True, early: bytes = b"") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        extra = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        head = f"POST {target} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{extra}"
        self.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + early)
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.socket.recv(65536)
            if not part:
                break
            data += part
        self.head, _, self._pending = data.partition(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end_input(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def receive(self, until: bytes) -> bytes:
        """Everything up to and with `until`."""
        while until not in self._pending:
            part = self.socket.recv(65536)
            assert part, f"ended without {until!r}: {self._pending!r}"
            self._pending += part
        end = self._pending.index(until) + len(until)
        found, self._pending = self._pending[:end], self._pending[end:]
        return found

    def rest(self) -> bytes:
        """Everything until the end."""
        parts = [self._pending]
        self._pending = b""
        while part := self.socket.recv(1 << 20):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Hijacked":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def unframe(data: bytes) -> dict[str, bytes]:
    """The streams of docker's multiplexed form."""
    found = {"stdout": b"", "stderr": b""}
    while data:
        kind, size = data[0], int.from_bytes(data[4:8], "big")
        assert kind in (1, 2), data[:80]
        found["stdout" if kind == 1 else "stderr"] += data[8 : 8 + size]
        data = data[8 + size :]
    return found


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class DockerCli:
    """The docker client."""

    def __init__(self, binary: str, host: str, config: Path) -> None:
        self._binary = binary
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(config),
            "DOCKER_HOST": host,
            "DOCKER_CONFIG": str(config),
        }

    def __call__(self, *arguments: str, input: str | bytes = b"", code: int | None = 0, seconds: float = 60) -> Ran:
        """Run it to its end; `code` is the exit code it must have, None for any."""
        data = input.encode() if isinstance(input, str) else input
        found = subprocess.run(
            [self._binary, *arguments], input=data, capture_output=True, env=self.environ, timeout=seconds, check=False
        )
        ran = Ran(found.returncode, found.stdout.decode(errors="replace"), found.stderr.decode(errors="replace"))
        assert code is None or ran.code == code, f"docker {' '.join(arguments)}: {ran}"
        return ran

    def spawn(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start it, with pipes."""
        return subprocess.Popen(
            [self._binary, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environ,
        )

    def terminal(self, *arguments: str) -> "Terminal":
        """Start it on a terminal."""
        return Terminal([self._binary, *arguments], self.environ)


class Terminal:
    """A process on a pseudo-terminal of 40 rows and 120 columns."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        import fcntl
        import struct
        import termios

        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**environ, "TERM": "xterm"}, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str, seconds: float = 20) -> str:
        """Everything that comes until `text`, with it."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(left, 0))
            data = b""
            if ready:
                with contextlib.suppress(OSError):
                    data = os.read(self._master, 65536)
            assert data, f"no {text!r} in {self.seen!r}"
            self.seen += data.decode(errors="replace")
        end = self.seen.index(text) + len(text)
        found, self.seen = self.seen[:end], self.seen[end:]
        return found

    def wait(self, seconds: float = 20) -> int:
        """Its exit code. What it writes until then is read away."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            ready, _, _ = select.select([self._master], [], [], 0.05)
            if ready:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self._master, 65536).decode(errors="replace")
        return self.process.wait(0.1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
