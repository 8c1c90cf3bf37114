"""RUN --mount=type=cache: directories that outlive builds, by id. They count for no key.

    <root>/<id's digest>/meta.json    {"id", "created_ns", "used_ns"}
    <root>/<id's digest>/<n>/         its directories: one, or several where writers do not share

Only the top of such a directory is ever mounted, by a path that no build can change: a step that plants links in a
cache cannot lead another step's mount anywhere (CVE-2024-23651).
"""

import asyncio
import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wherry.archive import tree_size
from wherry.build.dockerfile.mounts import Mount

Seed = Callable[[str], None]
"""Fills a new directory (--mount=type=cache,from=...)."""


@dataclass(frozen=True, slots=True)
class CacheDirectory:
    """One cache as du shows it. Times in nanoseconds since 1970, size in bytes."""

    name: str
    id: str
    created_ns: int
    used_ns: int
    size: int
    in_use: bool


class CacheMounts:
    """Those of one daemon. The loop's thread only."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: dict[str, dict[int, int]] = {}

    @asynccontextmanager
    async def acquire(self, mount: Mount, namespace: str, seed: Seed | None) -> AsyncIterator[str]:
        """The directory for one step: with "locked" after whoever has it, with "private" one that nobody has."""
        name = _name(mount, namespace)
        if mount.sharing == "locked":
            async with self._locks[name]:
                with self._used(name, 0):
                    yield await asyncio.to_thread(self._make, name, 0, mount, seed)
            return
        users = self._users.get(name, {})
        number = 0
        while mount.sharing == "private" and users.get(number):
            number += 1
        with self._used(name, number):
            yield await asyncio.to_thread(self._make, name, number, mount, seed)

    def list(self) -> list[CacheDirectory]:
        """In a thread: sizes are counted."""
        found = []
        for directory in sorted(self._root.iterdir()):
            with suppress(OSError, ValueError, KeyError):
                meta = json.loads((directory / "meta.json").read_text())
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    size = tree_size(fd)
                finally:
                    os.close(fd)
                found.append(
                    CacheDirectory(
                        directory.name,
                        meta["id"],
                        meta["created_ns"],
                        meta["used_ns"],
                        size,
                        any(self._users.get(directory.name, {}).values()),
                    )
                )
        return found

    def remove(self, name: str) -> None:
        """In a thread. One that a step has mounted stays."""
        if not any(self._users.get(name, {}).values()) and "/" not in name:
            shutil.rmtree(self._root / name, ignore_errors=True)

    def _used(self, name: str, number: int) -> "_Use":
        return _Use(self._users.setdefault(name, {}), number)

    def _make(self, name: str, number: int, mount: Mount, seed: Seed | None) -> str:
        directory = self._root / name
        directory.mkdir(mode=0o700, exist_ok=True)
        meta = directory / "meta.json"
        now = time.time_ns()
        created = now
        with suppress(OSError, ValueError, KeyError):
            created = json.loads(meta.read_text())["created_ns"]
        temporary = directory / f".meta-{os.urandom(4).hex()}"
        temporary.write_text(json.dumps({"id": mount.id, "created_ns": created, "used_ns": now}))
        temporary.rename(meta)
        path = directory / str(number)
        if path.is_dir():
            return str(path)
        making = directory / f".{number}-{os.urandom(4).hex()}"
        making.mkdir(mode=0o700)
        if seed is not None:
            seed(str(making))
        os.chown(making, mount.uid or 0, mount.gid or 0)
        making.chmod(mount.mode if mount.mode is not None else 0o755)
        try:
            making.rename(path)
        except OSError:
            # Another step was faster.
            shutil.rmtree(making, ignore_errors=True)
        return str(path)


class _Use:
    def __init__(self, users: dict[int, int], number: int) -> None:
        self._users, self._number = users, number

    def __enter__(self) -> None:
        self._users[self._number] = self._users.get(self._number, 0) + 1

    def __exit__(self, *_: object) -> None:
        self._users[self._number] -= 1


def _name(mount: Mount, namespace: str) -> str:
    text = json.dumps([namespace, mount.id, mount.origin, mount.source])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
