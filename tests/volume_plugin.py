"""A volume plugin as docker's protocol has it, in this process: volumes are directories below one of its own.

`behave` makes it misbehave: a method's name to what is sent instead of the right answer.
"""

import json
import shutil
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


class VolumePlugin:
    """What the server answers. `shown`: where `directory` is for the engine, when that is elsewhere."""

    def __init__(self, directory: Path, shown: str = "", scope: str = "local") -> None:
        self.directory = directory
        self.shown = shown or str(directory)
        self.scope = scope
        self.volumes: dict[str, dict[str, str]] = {}
        self.mounted: defaultdict[str, set[str]] = defaultdict(set)
        self.calls: list[tuple[str, Any]] = []
        self.behave: dict[str, Callable[[Any], Any]] = {}
        self.released = threading.Event()

    def answer(self, method: str, body: Any) -> Any:
        """The document for one call; None hangs until `released`."""
        self.calls.append((method, body))
        if method in self.behave:
            return self.behave[method](body)
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        name = (body or {}).get("Name", "")
        free = ("VolumeDriver.Create", "VolumeDriver.List", "VolumeDriver.Capabilities")
        if method not in free and name not in self.volumes:
            return {"Err": "no such volume"}
        return getattr(self, method.partition(".")[2].lower())(name, body or {})

    def create(self, name: str, body: Answer) -> Answer:
        self.volumes.setdefault(name, body.get("Opts") or {})
        (self.directory / name).mkdir(exist_ok=True)
        return {}

    def remove(self, name: str, body: Answer) -> Answer:
        if self.mounted[name]:
            return {"Err": "still mounted"}
        shutil.rmtree(self.directory / name, ignore_errors=True)
        del self.volumes[name]
        return {}

    def mount(self, name: str, body: Answer) -> Answer:
        self.mounted[name].add(body["ID"])
        return self.path(name, body)

    def unmount(self, name: str, body: Answer) -> Answer:
        self.mounted[name].discard(body["ID"])
        return {}

    def path(self, name: str, body: Answer) -> Answer:
        return {"Mountpoint": f"{self.shown}/{name}" if self.mounted[name] else ""}

    def get(self, name: str, body: Answer) -> Answer:
        shown = self.path(name, body)
        return {"Volume": {"Name": name, **shown, "Status": {"users": len(self.mounted[name])}}}

    def list(self, name: str, body: Answer) -> Answer:
        return {"Volumes": [{"Name": known, **self.path(known, body)} for known in self.volumes]}

    def capabilities(self, name: str, body: Answer) -> Answer:
        return {"Capabilities": {"Scope": self.scope}}


@contextmanager
def serving(plugin: VolumePlugin, path: Path) -> Iterator[VolumePlugin]:
    """`plugin` at the socket `path`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(32)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=_serve, args=(plugin, connection)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield plugin
    finally:
        plugin.released.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()
        path.unlink(missing_ok=True)
        shutil.rmtree(plugin.directory, ignore_errors=True)


def _serve(plugin: VolumePlugin, connection: socket.socket) -> None:
    # Connections that a client keeps must not keep a test.
    connection.settimeout(0.2)
    with connection, connection.makefile("rb") as file:
        while not plugin.released.is_set():
            try:
                line = file.readline()
            except TimeoutError:
                return
            if not line:
                return
            length = 0
            while (header := file.readline()) not in (b"\r\n", b""):
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
                elif header.lower().startswith(b"transfer-encoding:"):
                    length = -1
            body = _chunked(file) if length < 0 else file.read(length)
            found = plugin.answer(line.split()[1].decode()[1:], json.loads(body) if body.strip() else None)
            if found is None:
                plugin.released.wait(60)
                return
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            status = "500 Internal Server Error" if isinstance(found, dict) and found.get("Err") else "200 OK"
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                connection.sendall(head.encode() + data)
            except OSError:
                return


def _chunked(file: Any) -> bytes:
    body = b""
    while size := int(file.readline(), 16):
        body += file.read(size)
        file.readline()
    file.readline()
    return body


def announce(name: str, socket_path: str, directory: Path) -> Path:
    """The file that tells an engine of a plugin."""
    directory.mkdir(parents=True, exist_ok=True)
    spec = directory / f"{name}.spec"
    spec.write_text(f"unix://{socket_path}")
    return spec
