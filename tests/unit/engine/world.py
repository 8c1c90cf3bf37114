"""The other rooms in memory, each true to its contract. They outlive an engine, as the real ones outlive a daemon.

`World.kill_at` ends an engine's life between two operations: the N-th operation on any part, and every one after it,
raises `Killed`, which nothing in the engine catches.
"""

import asyncio
import builtins
import json
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from wherry.engine import DaemonConfig, Engine
from wherry.engine.parts import Parts
from wherry.errors import Conflict, FailedPrecondition, NotFound, PermissionDenied
from wherry.logs.client import Streams
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest, PublishedPort
from wherry.network.network import Network, built_in
from wherry.spec.digest import Digest
from wherry.spec.mount import Mount
from wherry.spec.oci_image import ImageConfig, RunConfig
from wherry.state import Change, MemoryStore


class Killed(BaseException):
    """The engine died here."""


class Exit(NamedTuple):
    id: str
    exec_id: str | None
    status: int
    oom_killed: bool = False
    at_ns: int = 1


class Started(NamedTuple):
    pid: int
    start_time: int
    pidfd: int
    console: int | None
    warnings: tuple[str, ...] = ()


class Probed(NamedTuple):
    status: int | None
    output: str


class Row(NamedTuple):
    id: str
    status: str
    pid: int
    start_time: int
    bundle: str
    exit: Exit | None


@dataclass
class FakeImage:
    id: str
    config: ImageConfig
    references: tuple[str, ...]
    chain: str = "sha256:" + "c" * 64
    layers: tuple[str, ...] = ("sha256:" + "c" * 64,)
    size: int = 1000
    parent: Digest | None = None
    digests: tuple[str, ...] = ()
    created: str | None = None


@dataclass
class Process:
    args: list[str]
    stdio: list[int]
    held: list[int]
    pid: int
    status: str = "running"
    exit: Exit | None = None
    execs: dict[str, list[int]] = field(default_factory=dict)


class World:
    """Everything that outlives an engine, and how to start engines on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.operations = 0
        self.kill_at: int | None = None
        self.killed = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.store = MemoryStore()
        self.image = FakeImage("sha256:" + "1" * 64, ImageConfig(config=RunConfig(cmd=("sleep",))), ("busybox:latest",))
        self.snapshots: dict[str, str | None] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.volumes: set[str] = set()
        self.processes: dict[str, Process] = {}
        self.streams: dict[str, list[int]] = {}
        self.clients: list[Monitor] = []
        self.next_pid = 100_000_000
        self.health: int | None = None  # what every probe ends with, if given
        self.root = directory / "root"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
        (self.root / "etc/group").write_text("root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n")

    def step(self) -> None:
        """One operation of the engine on a part."""
        self.operations += 1
        if self.kill_at is not None and self.operations >= self.kill_at:
            if self.loop is not None:
                self.loop.call_soon_threadsafe(self.killed.set)
            raise Killed

    async def open(self) -> Engine:
        """An engine on this world, as after a (re)start of the daemon."""
        self.clients.clear()
        return await Engine.open(self.config, self.parts())

    @property
    def config(self) -> DaemonConfig:
        return DaemonConfig(data_root=self.directory / "data", exec_root=self.directory / "exec")

    def parts(self) -> Parts:
        async def monitor(on_exit: Callable[[Any], None], on_lost: Callable[[], None]) -> Any:
            made = Monitor(self, on_exit, on_lost)
            self.clients.append(made)
            return made

        async def logger(on_eof: Callable[[str], None], on_lost: Callable[[], None]) -> Any:
            return Logger(self)

        return Parts(
            store=Store(self),
            images=Images(self),  # type: ignore[arg-type]
            snapshots=Snapshots(self),  # type: ignore[arg-type]
            networks=Networks(self),
            volumes=Volumes(self),
            open_monitor=monitor,
            open_logger=logger,
            cgroup=lambda path: None,  # type: ignore[arg-type, return-value]
        )

    def end(self, id: str, status: int) -> None:
        """The container's process ends by itself."""
        process = self.processes[id]
        if process.exit is not None:
            return
        process.status, process.exit = "stopped", Exit(id, None, status)
        for fd in process.stdio:
            os.close(fd)
        process.stdio = []
        for client in self.clients:
            client.report(process.exit)

    def close(self) -> None:
        for process in self.processes.values():
            for fd in (*process.stdio, *process.held):
                os.close(fd)
        for fds in self.streams.values():
            for fd in fds:
                os.close(fd)


class Store:
    """A store that counts its writes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.get, self.scan = world.store.get, world.store.scan

    def write(self, *changes: Change) -> None:
        self._world.step()
        self._world.store.write(*changes)

    def close(self) -> None:
        pass


class Images:
    def __init__(self, world: World) -> None:
        self._world = world

    def resolve(self, name: str) -> FakeImage:
        if name.partition(":")[0] != "busybox" and name != self._world.image.id:
            raise NotFound(f"No such image: {name}:latest")
        return self._world.image

    def container_removed(self) -> None:
        pass

    def list(self, *, all: bool = False) -> Sequence[FakeImage]:
        return [self._world.image]


class Snapshots:
    name = "overlay2"

    def __init__(self, world: World) -> None:
        self._world = world

    def prepare(self, key: str, parent: str | None, *, ephemeral: bool = False) -> None:
        self._world.step()
        self._world.snapshots[key] = parent

    def mounts(self, key: str) -> tuple[Mount, ...]:
        return (Mount("overlay", "overlay"),)

    def open_root(self, key: str, *, writable: bool = False) -> int:
        return os.open(self._world.root, os.O_PATH | os.O_DIRECTORY)

    def changes(self, key: str) -> list[Any]:
        return []

    def usage(self, key: str) -> int:
        return 42

    def layer_size(self, chain: str) -> int:
        return 1000

    def remove(self, key: str) -> None:
        self._world.step()
        self._world.snapshots.pop(key, None)

    def keys(self) -> list[str]:
        return list(self._world.snapshots)


class Networks:
    gateway = "172.17.0.1"

    def __init__(self, world: World) -> None:
        self._world = world

    def find(self, name: str) -> Network:
        if name not in ("bridge", "host", "none"):
            raise NotFound(f"network {name} not found")
        return built_in(name, "n" * 64, "")

    def start(self, live: Collection[Endpoint], sandboxes: Collection[str] = ()) -> None:
        self._world.step()
        self._world.endpoints = {endpoint.sandbox: endpoint for endpoint in live}

    def connect_all(
        self, sandbox: str, requests: Sequence[EndpointRequest], ports: Sequence[PortRequest] = (), given: str = ""
    ) -> Sequence[Endpoint]:
        self._world.step()
        (request,) = requests
        if request.network not in ("bridge", "host", "none"):
            raise NotFound(f"failed to set up container networking: network {request.network} not found")
        if sandbox in self._world.endpoints:
            raise Conflict(f"{sandbox} is connected already")
        taken = self._take(sandbox, ports)
        driver = {"bridge": "bridge", "host": "host", "none": "null"}[request.network]
        netns = self._world.directory / "exec/netns" / sandbox
        endpoint = Endpoint(sandbox, netns, request.network, "n" * 64, driver, "e" * 64, ipv4="172.17.0.2", ports=taken)
        self._world.endpoints[sandbox] = endpoint
        return (endpoint,)

    def _take(self, sandbox: str, requests: Sequence[PortRequest]) -> tuple[PublishedPort, ...]:
        others = [endpoint for endpoint in self._world.endpoints.values() if endpoint.sandbox != sandbox]
        taken = {port.host_port for endpoint in others for port in endpoint.ports}
        ports = tuple(PublishedPort(p.container_port, p.proto, "0.0.0.0", p.host_port_start) for p in requests)
        for port in ports:
            if port.host_port in taken:
                raise Conflict(f"Bind for 0.0.0.0:{port.host_port} failed: port is already allocated")
        return ports

    def change_ports(self, sandbox: str, requests: Sequence[PortRequest], *, try_only: bool = False) -> Endpoint:
        self._world.step()
        endpoint = self._world.endpoints[sandbox]
        changed = replace(endpoint, ports=self._take(sandbox, requests))
        if try_only:
            return endpoint
        self._world.endpoints[sandbox] = changed
        return changed

    def endpoints(self, sandbox: str) -> Sequence[Endpoint]:
        found = self._world.endpoints.get(sandbox)
        return () if found is None else (found,)

    def disconnect(self, sandbox: str, network: str | None = None) -> None:
        self._world.step()
        self._world.endpoints.pop(sandbox, None)

    def close(self) -> None:
        pass


class Volumes:
    tell: Callable[[str, str, Mapping[str, str]], None]

    def __init__(self, world: World) -> None:
        self._world = world

    def create(self, name: str | None, driver: str, options: Mapping[str, str], labels: Mapping[str, str]) -> Any:
        self._world.step()
        assert name
        self._world.volumes.add(name)
        return type("Volume", (), {"name": name, "driver": "local"})

    def get(self, name: str) -> Any:
        return None

    def list(self, filters: Any = None, users: Any = None) -> Sequence[Any]:
        return []

    def remove(self, name: str, force: bool = False) -> None:
        self._world.step()
        self._world.volumes.discard(name)

    def path(self, name: str) -> Path:
        return self._world.directory / "data/volumes" / name / "_data"

    def size(self, name: str) -> int:
        return 0

    def acquire(self, name: str, user: str) -> Path:
        return self.path(name)

    def release(self, name: str, user: str) -> None:
        pass

    def release_unused(self) -> None:
        pass

    def populate(self, name: str, source: int, path: str) -> None:
        self._world.step()


class Monitor:
    """Programs: "true", "exit N", "missing", "forbidden", "stubborn" (only SIGKILL ends it); all others run on."""

    def __init__(self, world: World, on_exit: Callable[[Any], None], on_lost: Callable[[], None]) -> None:
        self._world = world
        self._on_exit = on_exit
        self.lose = on_lost
        self._loop = asyncio.get_running_loop()

    def report(self, exit: Exit) -> None:
        self._loop.call_soon(self._on_exit, exit)

    async def run(self, id: str, bundle: Path, rootfs: Any, stdio: Any, hold: Sequence[int] = ()) -> Started:
        self._world.step()
        config = json.loads((bundle / "config.json").read_bytes())
        args = config["process"]["args"]
        self._refuse(args[0])
        assert id not in self._world.processes
        self._world.next_pid += 1
        process = Process(
            args, [os.dup(fd) for fd in stdio if fd is not None], [os.dup(fd) for fd in hold], self._world.next_pid
        )
        self._world.processes[id] = process
        if args[0] in ("true", "exit"):
            self._world.end(id, int(args[1]) if len(args) > 1 else 0)
        return Started(process.pid, 7, os.open("/dev/null", os.O_RDONLY), None)

    def _refuse(self, program: str) -> None:
        if program == "missing":
            raise NotFound('exec: "missing": executable file not found in $PATH')
        if program == "forbidden":
            raise PermissionDenied('exec: "forbidden": permission denied')

    async def exec(self, id: str, exec_id: str, process: dict[str, Any], stdio: Any) -> Started:
        self._refuse(process["args"][0])
        self._world.next_pid += 1
        if stdio.stdout is not None:
            os.write(stdio.stdout, json.dumps(process).encode())
        self.report(Exit(id, exec_id, 3))
        return Started(self._world.next_pid, 7, os.open("/dev/null", os.O_RDONLY), None)

    async def probe(self, id: str, args: Sequence[str], seconds: float) -> Probed:
        """Probes: "exit N SAID", "missing", and "hang", which is killed when its time is over."""
        self._refuse(args[0])
        if args[0] == "hang":
            await asyncio.sleep(seconds)
            return Probed(None, "half")
        if self._world.health is not None:
            return Probed(self._world.health, "told")
        return Probed(int(args[1]), " ".join(args[2:]))

    async def kill(self, id: str, signal: int, *, all: bool = False) -> None:
        self._world.step()
        process = self._world.processes.get(id)
        if process is None or process.exit is not None:
            raise FailedPrecondition("container not running")
        if signal == 9 or process.args[0] != "stubborn":
            self._world.end(id, 128 + signal)

    async def delete(self, id: str, *, force: bool = False) -> None:
        self._world.step()
        process = self._world.processes.pop(id, None)
        for fd in (*process.stdio, *process.held) if process else ():
            os.close(fd)

    async def pause(self, id: str) -> None:
        self._world.processes[id].status = "paused"

    async def resume(self, id: str) -> None:
        self._world.processes[id].status = "running"

    async def update(self, id: str, resources: dict[str, Any]) -> None:
        pass

    async def processes(self, id: str) -> list[int]:
        return [os.getpid()]

    async def list(self) -> list[Row]:
        return [Row(id, p.status, p.pid, 7, "", p.exit) for id, p in self._world.processes.items()]

    async def held(self, id: str) -> builtins.list[int]:
        return [os.dup(fd) for fd in self._world.processes[id].held]

    async def hold(self, id: str, fds: Sequence[int]) -> None:
        process = self._world.processes[id]
        for fd in process.held:
            os.close(fd)
        process.held = [os.dup(fd) for fd in fds]

    def close(self) -> None:
        with suppress(ValueError):
            self._world.clients.remove(self)


class Logger:
    def __init__(self, world: World) -> None:
        self._world = world

    async def open(self, id: str, target: Any, streams: Any) -> None:
        self._world.step()
        if id in self._world.streams:
            raise FailedPrecondition(f"{id} is open already")
        self._world.streams[id] = [os.dup(fd) for fd in streams if fd is not None]

    async def attach(self, id: str, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        return socket.socketpair()[0]

    async def resize(self, id: str, height: int, width: int) -> None:
        pass

    async def drain(self, id: str, timeout: float) -> bool:
        return True

    async def close(self, id: str) -> None:
        self._world.step()
        for fd in self._world.streams.pop(id, ()):
            os.close(fd)

    async def streams(self) -> list[str]:
        return list(self._world.streams)

    async def copies(self, id: str) -> Streams:
        if id not in self._world.streams:
            raise NotFound(f"no streams of {id} are open")
        return Streams.of_held([os.dup(fd) for fd in self._world.streams[id]], tty=False)

    def disconnect(self) -> None:
        pass
