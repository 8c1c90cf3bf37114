"""Where a build's files come from: directories of the client, archives it sends, addresses."""

import asyncio
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wherry.build.graph import Context, Copy, Plan, Run, walk
from wherry.build.ignore import Ignore, read_ignore_file
from wherry.build.request import Tree
from wherry.buildkit.filesync import read_small, sync
from wherry.buildkit.report import Report
from wherry.buildkit.sessions import Session
from wherry.buildkit.synced import Slot, SyncedDirectories
from wherry.errors import NotFound

IGNORE_FILE = ".dockerignore"


class SessionContexts:
    """The builder's ContextSource. `locals` says which of the client's directories a context is; "" is the main one.

    A directory that is here already (`trees`: an archive, a repository) needs no client.
    """

    def __init__(
        self,
        session: Session | None,
        directories: SyncedDirectories,
        report: Report,
        locals: Mapping[str, str],
        trees: Mapping[str, Tree],
    ) -> None:
        self._session, self._directories, self._report = session, directories, report
        self._locals, self._trees = locals, dict(trees)
        self.ignores: dict[str, Ignore] = {}
        self._patterns: dict[str, Sequence[str]] = {}
        self._wanted: dict[str, set[str]] = {}
        self._slots: list[Slot] = []
        self._coming: dict[str, asyncio.Task[Tree]] = {}

    def use(self, name: str, ignore_text: str) -> None:
        """The rules for what context `name` leaves out."""
        patterns = read_ignore_file(ignore_text)
        rules = Ignore(patterns)
        if rules.rules:
            self.ignores[name] = rules
            self._patterns[name] = patterns

    def planned(self, plan: Plan) -> None:
        """From now on it is known which paths are wanted of each context."""
        for node in walk(plan.result):
            operation = node.operation
            if isinstance(operation, Copy):
                for index, path in operation.sources:
                    self._want(node.inputs[index].operation, path)
            elif isinstance(operation, Run):
                for mount in operation.mounts:
                    if mount.input is not None:
                        self._want(node.inputs[mount.input].operation, mount.mount.source or "/")

    def _want(self, operation: object, path: str) -> None:
        if isinstance(operation, Context):
            self._wanted.setdefault(operation.name, set()).add(path)

    async def tree(self, name: str, wanted: tuple[str, ...]) -> Tree:
        """NotFound for a context nobody gave."""
        found = self._trees.get(name)
        if found is not None:
            return found
        local = self._locals.get(name)
        if local is None or self._session is None:
            raise NotFound(f"there is no context {name!r}" if name else "there is no build context", object=name)
        task = self._coming.get(name)
        if task is None:
            task = self._coming[name] = asyncio.ensure_future(self._receive(self._session, name, local))
        return await asyncio.shield(task)

    async def _receive(self, session: Session, name: str, local: str) -> Tree:
        follow = follow_paths(self._wanted.get(name, ()))
        patterns: dict[str, Sequence[str]] = {}
        if follow:
            patterns["followpaths"] = follow
        if name in self._patterns:
            patterns["exclude-patterns"] = self._patterns[name]
        # Without a key the client's directory cannot be told from another's: nothing is kept then.
        key = session.shared_key or f"{session.id} alone"
        slot = self._directories.acquire(key, local, repr(sorted(patterns.items())))
        self._slots.append(slot)
        vertex = self._report.step_named(f"load {name or 'build context'}")
        count = 0

        def on_bytes(received: int) -> None:
            nonlocal count
            count = received
            if vertex is not None:
                vertex.status("transferring context:", received, name="transferring")

        await sync(session, local, patterns, slot, on_bytes)
        if vertex is not None:
            vertex.status("transferring context:", count, name="transferring", done=True)
        return slot

    async def close(self) -> None:
        for task in self._coming.values():
            task.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)
        for slot in self._slots:
            self._directories.release(slot)
            if self._session is not None and not self._session.shared_key:
                for gone in self._directories.take_out(slot):
                    await asyncio.to_thread(gone.remove)


def follow_paths(wanted: Iterable[str]) -> list[str]:
    """The paths to ask a client for; none for everything."""
    found = set()
    for path in wanted:
        clean = posixpath.normpath("/" + path).lstrip("/")
        if not clean or "**" in path:
            return []
        found.add(clean)
    return sorted(found)


async def read_files(
    session: Session, local: str, names: Sequence[str], report: Report, title: str, word: str, scratch: Path
) -> dict[str, bytes]:
    """Small files of a client's directory, with a line of progress."""
    with report.vertex(title) as vertex:
        count = 0

        def on_bytes(received: int) -> None:
            nonlocal count
            count = received

        found = await read_small(session, local, names, on_bytes, scratch)
        vertex.status(f"transferring {word}:", count, name="transferring", done=True)
        return found
