"""An engine without containers: what the API asks of the real one, answered from memory.

Streams are real sockets and pipes, so that what the API does with them is tested for real.
"""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from wherry.errors import Conflict, NotFound
from wherry.spec.docker import ContainerConfig, ExecConfig, HostConfig, NetworkingConfig


class Created(NamedTuple):
    id: str
    warnings: list[str]


class WaitResult(NamedTuple):
    status: int
    error: str | None


class LogLine(NamedTuple):
    stream: str
    time_ns: int
    line: bytes


class PathStat(NamedTuple):
    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


class FakeContainer:
    def __init__(self, name: str, config: ContainerConfig, host: HostConfig, networking: NetworkingConfig) -> None:
        self.id = hashlib.sha256(name.encode()).hexdigest()
        self.name = name
        self.config = config
        self.host = host
        self.networking = networking
        self.running = False
        self.waiters: list[asyncio.Future[WaitResult]] = []
        self.log: list[LogLine] = []
        self.log_grows = asyncio.Event()
        # Our ends of attached clients' streams.
        self.attached: list[socket.socket] = []
        self.was_attached = asyncio.Event()

    def exit(self, status: int) -> None:
        self.running = False
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(WaitResult(status, None))
        self.log_grows.set()


class FakeContainers:
    def __init__(self) -> None:
        self.made: dict[str, FakeContainer] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.unpacked: list[bytes] = []
        self.fail: Exception | None = None

    def find(self, id: str) -> FakeContainer:
        for container in self.made.values():
            if id == container.name or container.id.startswith(id):
                return container
        raise NotFound(f"No such container: {id}", object=id)

    def resolve(self, id: str) -> str:
        return self.find(id).id

    async def create(
        self, name: str | None, config: ContainerConfig, host: HostConfig, networking: NetworkingConfig, platform: Any
    ) -> Created:
        if self.fail is not None:
            raise self.fail
        name = name or f"made-{len(self.made)}"
        if name in self.made:
            raise Conflict(f'Conflict. The container name "/{name}" is already in use', object=name)
        container = self.made[name] = FakeContainer(name, config, host, networking)
        return Created(container.id, [])

    async def start(self, id: str) -> bool:
        container = self.find(id)
        started = not container.running
        container.running = True
        return started

    async def stop(self, id: str, timeout: int | None = None, signal: str | None = None) -> bool:
        self.calls.append(("stop", id, timeout, signal))
        return self.find(id).running

    async def remove(self, id: str, **options: bool) -> None:
        self.calls.append(("remove", id, options))
        del self.made[self.find(id).name]

    def wait_registered(self, id: str, condition: str = "not-running") -> asyncio.Future[WaitResult]:
        container = self.find(id)
        waiter: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not container.running:
            waiter.set_result(WaitResult(0, None))
        else:
            container.waiters.append(waiter)
        return waiter

    async def inspect(self, id: str, size: bool = False) -> dict[str, Any]:
        container = self.find(id)
        return {
            "Id": container.id,
            "NetworkSettings": {"IPAddress": "10.0.0.2", "Networks": {}},
            "HostConfig": {"KernelMemoryTCP": 0, "Memory": 5},
            "Config": {"OnBuild": None, "Image": "x"},
        }

    async def list(self, **options: Any) -> list[dict[str, Any]]:
        return [{"Id": c.id, "ImageID": "", "State": "running" if c.running else "exited"} for c in self.made.values()]

    async def list_json(self, **options: Any) -> bytes:
        self.calls.append(("list", options))
        return b"[]"

    def is_tty(self, id: str) -> bool:
        return self.find(id).config.tty

    async def attach(self, id: str, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.find(id).attached.append(ours)
        self.find(id).was_attached.set()
        return theirs

    def detached(self, id: str) -> None:
        self.calls.append(("detached", id))

    async def resize(self, id: str, height: int, width: int) -> None:
        self.calls.append(("resize", id, height, width))

    def logs(self, id: str, *, follow: bool = False, **options: Any) -> AsyncIterator[LogLine]:
        return self._logs(self.find(id), follow)

    async def _logs(self, container: FakeContainer, follow: bool) -> AsyncIterator[LogLine]:
        given = 0
        while True:
            for line in container.log[given:]:
                yield line
            given = len(container.log)
            if not follow or not container.running:
                return
            container.log_grows.clear()
            await container.log_grows.wait()

    async def archive_stat(self, id: str, path: str) -> PathStat:
        return PathStat("etc", 4096, 0o20000000755, "2026-01-02T03:04:05Z", "")

    async def archive_get(self, id: str, path: str) -> tuple[PathStat, int]:
        return await self.archive_stat(id, path), await self.export(id)

    async def archive_put(self, id: str, path: str, tar: BinaryIO, **options: bool) -> None:
        self.unpacked.append(await asyncio.to_thread(tar.read))

    async def export(self, id: str) -> int:
        self.find(id)
        reading, writing = os.pipe()

        def write() -> None:
            with os.fdopen(writing, "wb") as file:
                for _ in range(40):
                    file.write(b"x" * 65536)

        self.writer = asyncio.create_task(asyncio.to_thread(write))
        return reading


class FakeExecStream:
    """Gives back what it is given, framed as standard output; ends when its input ends."""

    def __init__(self, tty: bool) -> None:
        self.tty = tty
        self.closed = False
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self._queue.get()

    async def write(self, data: bytes) -> None:
        self._queue.put_nowait(data if self.tty else b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data)

    async def close_write(self) -> None:
        self._queue.put_nowait(b"")

    async def wait(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


class FakeExecs:
    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers
        self.made: dict[str, ExecConfig] = {}
        self.streams: list[FakeExecStream] = []
        self.fail: Exception | None = None

    async def create(self, container: str, config: ExecConfig) -> str:
        self._containers.find(container)
        id = f"{len(self.made):064x}"
        self.made[id] = config
        return id

    def detached(self, id: str) -> None:
        self._containers.calls.append(("detached", id))

    async def inspect(self, id: str) -> dict[str, Any]:
        if id not in self.made:
            raise NotFound(f"No such exec instance: {id}", object=id)
        return {"Running": False, "ExitCode": None, "ProcessConfig": {"tty": self.made[id].tty}}

    async def start(self, id: str, *, detach: bool = False, tty: bool = False, **options: Any) -> FakeExecStream | None:
        if self.fail is not None:
            raise self.fail
        if detach:
            return None
        stream = FakeExecStream(tty)
        self.streams.append(stream)
        return stream


class FakeEvents:
    def __init__(self) -> None:
        self.emitted: list[tuple[str, str, str]] = []
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def emit(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        self.emitted.append((type, action, id))

    async def subscribe(self, since: Any = None, until: Any = None, filters: Any = None) -> AsyncIterator[Any]:
        while (event := await self.queue.get()) is not None:
            yield event


class FakeEngine:
    def __init__(self) -> None:
        self.containers = FakeContainers()
        self.execs = FakeExecs(self.containers)
        self.events = FakeEvents()

    async def version(self) -> dict[str, Any]:
        return {"Version": "1", "Components": [{"Name": "Engine", "Version": "1"}]}

    async def info(self) -> dict[str, Any]:
        return {"ID": "x", "FirewallBackend": {"Driver": "nftables"}}

    async def disk_usage(self) -> dict[str, Any]:
        return {"LayersSize": 3, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []}
