"""The containers of one engine, as the API sees them."""

import asyncio
import builtins
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from wherry.spec.docker import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy

Filters = Mapping[str, Sequence[str]]
"""Docker's filters: name to accepted values. The old form {"name": {"value": true}} is turned into this by the API."""


class Created(NamedTuple):
    """A new container's full id, and what the user should know."""

    id: str
    warnings: list[str]


class WaitResult(NamedTuple):
    """An exit status, and the reason when there is none because something failed."""

    status: int
    error: str | None


class LogLine(NamedTuple):
    """One record of a log. `stream`: "stdout" or "stderr"; `line` ends with its newline when it had one."""

    stream: str
    time_ns: int
    line: bytes


class PathStat(NamedTuple):
    """What X-Docker-Container-Path-Stat carries; `mode` is Go's os.FileMode, `mtime` RFC 3339."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


class Containers:
    """Every operation on containers. `id` may be an id, a unique prefix of one, or a name."""

    def resolve(self, id: str) -> str:
        """The full id; NotFound "No such container: x", InvalidArgument when a prefix fits several."""
        raise NotImplementedError

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        platform: str | None = None,
    ) -> Created:
        """Make a container; nothing runs yet. NotFound: no such image. Conflict: the name is taken."""
        raise NotImplementedError

    async def start(self, id: str) -> bool:
        """Run it; False when it runs already (304). NotFound/InvalidArgument/... as docker words them."""
        raise NotImplementedError

    async def stop(self, id: str, timeout: int | None = None, signal: str | None = None) -> bool:
        """Signal it, kill it after `timeout` seconds (-1: never); False when it was not running (304)."""
        raise NotImplementedError

    async def restart(self, id: str, timeout: int | None = None, signal: str | None = None) -> None:
        """Stop, then start."""
        raise NotImplementedError

    async def kill(self, id: str, signal: str | None = None) -> None:
        """Send a signal ("KILL", "SIGTERM", "9"); Conflict when it is not running."""
        raise NotImplementedError

    async def pause(self, id: str) -> None:
        """Freeze it."""
        raise NotImplementedError

    async def unpause(self, id: str) -> None:
        """Thaw it."""
        raise NotImplementedError

    async def rename(self, id: str, name: str) -> None:
        """Give it a new name; Conflict when that is taken."""
        raise NotImplementedError

    async def remove(self, id: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove it, its writable layer and log; `volumes`: its anonymous volumes too."""
        raise NotImplementedError

    async def update(self, id: str, resources: HostConfig, restart: RestartPolicy | None) -> builtins.list[str]:
        """Change limits of a container, running or not; the warnings."""
        raise NotImplementedError

    def wait_registered(self, id: str, condition: str = "not-running") -> asyncio.Future[WaitResult]:
        """Register a waiter now (so that the API can send its headers) and return what to await.

        `condition`: "not-running" (or ""), "next-exit", "removed". Cancel the future to forget the waiter.
        """
        raise NotImplementedError

    async def wait(self, id: str, condition: str = "not-running") -> WaitResult:
        """`wait_registered`, awaited."""
        return await self.wait_registered(id, condition)

    async def inspect(self, id: str, size: bool = False) -> dict[str, Any]:
        """Docker's inspect document."""
        raise NotImplementedError

    async def list(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> list[dict[str, Any]]:
        """Docker's summaries, newest first."""
        raise NotImplementedError

    async def list_json(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> bytes:
        """What `list` gives as a JSON text, put together from cached pieces: for the API's hot path."""
        raise NotImplementedError

    async def top(self, id: str, ps_args: str = "-ef") -> dict[str, Any]:
        """{"Titles": [...], "Processes": [[...]]}; Conflict when it is not running."""
        raise NotImplementedError

    async def changes(self, id: str) -> builtins.list[dict[str, Any]]:
        """Docker diff: [{"Path": "/x", "Kind": 0|1|2}]."""
        raise NotImplementedError

    def is_tty(self, id: str) -> bool:
        """Whether its stream is raw (True) or in frames."""
        raise NotImplementedError

    def opens_stdin(self, id: str) -> bool:
        """Whether it was made with OpenStdin."""
        raise NotImplementedError

    async def attach(self, id: str, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        """A stream socket to its standard streams, before or after start: reads give frames (raw with a tty),
        EOF at the end; writes are stdin, shutdown(SHUT_WR) its end. The caller owns it."""
        raise NotImplementedError

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of its terminal."""
        raise NotImplementedError

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
    ) -> AsyncIterator[LogLine]:
        """Its log. `since`/`until`: Unix seconds, 0 for none; `tail`: the last lines, None for all. Raises at the
        call, not at the first item. Timestamps and frames are the API's to write."""
        raise NotImplementedError

    async def archive_stat(self, id: str, path: str) -> PathStat:
        """What is at `path` in it; NotFound "Could not find the file x in container y"."""
        raise NotImplementedError

    async def archive_get(self, id: str, path: str) -> tuple[PathStat, int]:
        """Its stat, and the reading end of a pipe that gives a tar of it. The caller owns the descriptor."""
        raise NotImplementedError

    async def archive_put(
        self, id: str, path: str, tar: BinaryIO, *, no_overwrite_dir_non_dir: bool = False, copy_uid_gid: bool = False
    ) -> None:
        """Unpack an uncompressed or compressed tar in the directory `path`. `tar` is read in a thread."""
        raise NotImplementedError

    async def export(self, id: str) -> int:
        """The reading end of a pipe that gives a tar of the whole file system. The caller owns it."""
        raise NotImplementedError

    async def prune(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove all that do not run: {"ContainersDeleted": [...], "SpaceReclaimed": n}."""
        raise NotImplementedError
