"""The containers of one engine, as the API sees them: found by name here, dealt with by the module that knows how."""

import asyncio
import builtins
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from wherry.engine import attachments, creation, files, lifecycle, output, replacement, stats
from wherry.engine.commit import CommitRequest, commit
from wherry.engine.container import Container, WaitResult
from wherry.engine.core import Core
from wherry.engine.creation import Created
from wherry.engine.disk_usage import container_sizes
from wherry.engine.execs import Execs
from wherry.engine.files import PathStat
from wherry.engine.filters import Filters, select
from wherry.engine.inspection import inspect
from wherry.engine.prune import prune
from wherry.engine.replacement import Altered
from wherry.engine.sampling import sample_all
from wherry.engine.summaries import write_summaries
from wherry.engine.top import top
from wherry.engine.usage import Usage, measure
from wherry.errors import Conflict, FailedPrecondition, InvalidArgument
from wherry.logs.reader import LogRecord
from wherry.spec.alteration import Alteration
from wherry.spec.docker import ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig, RestartPolicy

_SAMPLE_SECONDS = 1.0
_CONDITIONS = ("not-running", "next-exit", "removed")


class Identity(NamedTuple):
    """By what a container is known."""

    id: str
    name: str
    labels: Mapping[str, str]


class Containers:
    """Every operation on containers. `id` may be an id, a unique prefix of one, or a name."""

    def __init__(self, core: Core, execs: Execs) -> None:
        self._core = core
        self._execs = execs

    def identity(self, id: str) -> Identity:
        """Its full id, name and labels; errors as `resolve`."""
        container = self._find(id)
        return Identity(container.id, container.name, container.definition.config.labels or {})

    def count(self) -> Counter[str]:
        """How many are in each status, as docker shows it."""
        return Counter(container.state.shown_status for container in self._core.index)

    async def usage(self) -> builtins.list[Usage]:
        """What those that run use just now."""
        running = [container for container in self._core.index if container.state.running]
        return await asyncio.to_thread(measure, self._core, running) if running else []

    def resolve(self, id: str) -> str:
        """The full id; NotFound "No such container: x", InvalidArgument when a prefix fits several."""
        return self._find(id).id

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        platform: str | None = None,
    ) -> Created:
        """Make a container; nothing runs yet. NotFound: no such image. Conflict: the name is taken."""
        return await creation.create(self._core, name, config, host, networking, platform)

    async def start(self, id: str) -> bool:
        """Run it; False when it runs already (304). What cannot be executed is InvalidArgument, in docker's words."""
        return await lifecycle.start(self._core, id)

    async def stop(
        self, id: str, timeout: int | None = None, signal: str | None = None, notes: builtins.list[str] | None = None
    ) -> bool:
        """Signal it, kill it after `timeout` seconds (-1: never); False when it was not running (304).

        `notes` is given what the user should know of it.
        """
        return await lifecycle.stop(self._core, id, timeout, signal, notes)

    async def restart(
        self, id: str, timeout: int | None = None, signal: str | None = None, notes: builtins.list[str] | None = None
    ) -> None:
        """Stop, then start."""
        await lifecycle.restart(self._core, id, timeout, signal, notes)

    async def kill(self, id: str, signal: str | None = None) -> None:
        """Send a signal ("KILL", "SIGTERM", "9"); Conflict when it is not running."""
        await lifecycle.kill(self._core, id, signal)

    async def pause(self, id: str) -> None:
        """Freeze it."""
        await lifecycle.pause(self._core, id)

    async def unpause(self, id: str) -> None:
        """Thaw it."""
        await lifecycle.unpause(self._core, id)

    async def rename(self, id: str, name: str) -> None:
        """Give it a new name; Conflict when that is taken."""
        await lifecycle.rename(self._core, id, name)

    async def remove(self, id: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove it, its writable layer and log; `volumes`: its anonymous volumes too."""
        await lifecycle.remove(self._core, id, force=force, volumes=volumes, link=link)

    async def update(self, id: str, resources: HostConfig, restart: RestartPolicy | None) -> builtins.list[str]:
        """Change limits of a container, running or not; the warnings."""
        return await lifecycle.update(self._core, id, resources, restart)

    async def alter(self, id: str, wanted: Alteration) -> Altered:
        """Change what it was made from, keeping its id, name and files; started anew only where nothing else will do.
        On any failure it is what it was."""
        return await replacement.alter(self._core, id, wanted)

    async def commit(self, id: str, wanted: CommitRequest) -> str:
        """Make an image of what changed in it; the image's id."""
        return await commit(self._core, id, wanted)

    def wait_registered(self, id: str, condition: str = "not-running") -> asyncio.Future[WaitResult]:
        """Register a waiter now (so that the API can send its headers) and return what to await.

        `condition`: "not-running" (or ""), "next-exit", "removed". Cancel the future to forget the waiter.
        """
        condition = condition or "not-running"
        if condition not in _CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"', object=condition)
        return self._find(id).wait_for(condition)

    async def wait(self, id: str, condition: str = "not-running") -> WaitResult:
        """`wait_registered`, awaited."""
        return await self.wait_registered(id, condition)

    async def inspect(self, id: str, size: bool = False) -> dict[str, Any]:
        """Docker's inspect document."""
        container = self._find(id)
        document = inspect(self._core, container, self._execs.of(container))
        if size:
            written = (await container_sizes(self._core, [container])).get(container.id, 0)
            document["SizeRw"], document["SizeRootFs"] = written, written + container.definition.image_size
        return document

    async def list(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> builtins.list[dict[str, Any]]:
        """Docker's summaries, newest first. With `all`, what has been removed is gone from disk too: images and
        volumes it stood on may be removed."""
        if all:
            await self._core.disposed()
        found: builtins.list[dict[str, Any]] = json.loads(
            await self.list_json(all=all, limit=limit, size=size, filters=filters)
        )
        return found

    async def list_json(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> bytes:
        """What `list` gives as a JSON text, put together from kept pieces: for the API's hot path."""
        found = select(self._core, filters or {}, all=all or limit > 0)
        if limit > 0:
            found = found[:limit]
        return write_summaries(self._core, found, await container_sizes(self._core, found) if size else None)

    async def top(self, id: str, ps_args: str = "-ef") -> dict[str, Any]:
        """{"Titles": [...], "Processes": [[...]]}; Conflict when it is not running."""
        container = self._find(id)
        files.check_running(container)
        monitor = await self._core.backends.monitor()
        return await top(await monitor.processes(container.id), ps_args)

    async def stats(self, id: str, *, one_shot: bool = False) -> AsyncIterator[dict[str, Any]]:
        """What it uses, in docker's document: the first after a second (`one_shot`: at once), then one a second.

        Ends when it is removed.
        """
        container = self._find(id)
        previous = None if one_shot else await asyncio.to_thread(stats.sample, self._core, container)
        while container.id in self._core.index and not self._core.closing:
            if not one_shot:
                await asyncio.sleep(_SAMPLE_SECONDS)
            current = await asyncio.to_thread(stats.sample, self._core, container)
            yield stats.follow(previous, dict(current))
            previous, one_shot = current, False

    def stats_of_all(
        self, references: Sequence[str] = (), *, all: bool = False, stream: bool = False
    ) -> AsyncIterator[builtins.list[dict[str, Any]]]:
        """What the named containers use, or all that run (`all`: all), sampled together: sampling.py."""
        return sample_all(self._core, references, all=all, stream=stream)

    async def changes(self, id: str) -> builtins.list[dict[str, Any]]:
        """Docker diff: [{"Path": "/x", "Kind": 0|1|2}]."""
        return await files.changes(self._core, self._find(id))

    def is_tty(self, id: str) -> bool:
        """Whether its stream is raw (True) or in frames."""
        return self._find(id).definition.config.tty

    async def attach(self, id: str, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        """A stream socket to its standard streams, before or after start: reads give frames (raw with a tty),
        EOF at the end; writes are stdin, shutdown(SHUT_WR) its end. The caller owns it."""
        container = self._find(id)
        if container.state.status == "paused":
            raise Conflict(f"container {id} is paused, unpause the container before attach", object=container.id)
        if container.state.status == "restarting":
            raise Conflict(f"container {id} is restarting, wait until the container is running", object=container.id)
        logger = await self._core.backends.logger()
        config = container.definition.config
        connection = await logger.attach(container.id, stdin=stdin and config.open_stdin, stdout=stdout, stderr=stderr)
        self._core.emit(container, "attach")
        return connection

    def detached(self, id: str) -> None:
        """A client left its streams by the keys for it."""
        self._core.emit(self._find(id), "detach")

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of its terminal."""
        container = self._find(id)
        files.check_running(container)
        if not container.definition.config.tty:
            raise FailedPrecondition(f"container {container.id} has no terminal", object=container.id)
        await (await self._core.backends.logger()).resize(container.id, height, width)
        self._core.emit(container, "resize", height=str(height), width=str(width))

    def logs(
        self,
        id: str,
        *,
        stdout: bool,
        stderr: bool,
        since: float = 0,
        until: float = 0,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[LogRecord]:
        """Its log. `since`/`until`: Unix seconds, 0 for none; `tail`: the last lines, None for all. Raises at the
        call, not at the first item. Timestamps and frames are the API's to write."""
        container = self._find(id)
        if not stdout and not stderr:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        records = output.read(
            self._core,
            container,
            since=_nanoseconds(since),
            until=_nanoseconds(until),
            tail=tail,
            follow=follow,
            still_running=lambda: container.run is not None and not self._core.closing,
        )
        wanted = {name for name, chosen in (("stdout", stdout), ("stderr", stderr)) if chosen}
        return records if len(wanted) == 2 else _only(records, wanted)

    async def archive_stat(self, id: str, path: str) -> PathStat:
        """What is at `path` in it; NotFound "Could not find the file x in container y"."""
        return await files.stat(self._core, self._find(id), path)

    async def archive_get(self, id: str, path: str) -> tuple[PathStat, int]:
        """Its stat, and the reading end of a pipe that gives a tar of it. The caller owns the descriptor."""
        container = self._find(id)
        found = await files.get(self._core, container, path)
        self._core.emit(container, "archive-path")
        return found

    async def archive_put(
        self, id: str, path: str, tar: BinaryIO, *, no_overwrite_dir_non_dir: bool = False, copy_uid_gid: bool = False
    ) -> None:
        """Unpack an uncompressed or compressed tar in the directory `path`. `tar` is read in a thread."""
        container = self._find(id)
        await files.put(self._core, container, path, tar, no_overwrite=no_overwrite_dir_non_dir, as_user=copy_uid_gid)
        self._core.emit(container, "extract-to-dir")

    async def export(self, id: str) -> int:
        """The reading end of a pipe that gives a tar of the whole file system. The caller owns it."""
        container = self._find(id)
        self._core.emit(container, "export")
        return files.export(self._core, container)

    async def connect(self, network: str, id: str, settings: EndpointSettings | None = None) -> None:
        """Connect it to one network more, running or not."""
        await attachments.connect(self._core, network, id, settings)

    async def disconnect(self, network: str, id: str, *, force: bool = False) -> None:
        """Take it out of a network; `force`: not there is no error."""
        await attachments.disconnect(self._core, network, id, force=force)

    async def prune(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove all that do not run: {"ContainersDeleted": [...], "SpaceReclaimed": n}."""
        return await prune(self._core, filters or {})

    def _find(self, id: str) -> Container:
        return self._core.index.find(id)


def _nanoseconds(seconds: float) -> int:
    return int(seconds) * 1_000_000_000 + round((seconds - int(seconds)) * 1_000_000_000)


async def _only(records: AsyncIterator[LogRecord], wanted: set[str]) -> AsyncIterator[LogRecord]:
    async for record in records:
        if record.stream in wanted:
            yield record
