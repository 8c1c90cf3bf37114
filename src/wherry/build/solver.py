"""The graph solved: each node's tree found in the cache or made, independent ones side by side, equal ones once.

A node's key is a digest of its operation, the tree below it (a ChainID: content, not history) and what it takes from
other trees (a digest of just that, without times). Two builds that come to the same key at the same time share one
execution, which ends early only when neither waits for it any more.
"""

import asyncio
import hashlib
import json
import os
import secrets as random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

from wherry.build.cache import BuildCache, CacheRecord
from wherry.build.copying import Copier, make_directories
from wherry.build.graph import Context, Copy, Git, ImageTree, MakeDirectory, Node, Remote, Run, Scratch, walk
from wherry.build.ignore import Ignore
from wherry.build.owners import owner_of
from wherry.build.progress import BuildOutput, Event, OnEvent
from wherry.build.request import ContextSource, SecretSource, SshSource, Tree
from wherry.build.selection import excluding, select
from wherry.build.trees import Digests, SourceTree, digest_entries
from wherry.errors import FailedPrecondition, WherryError
from wherry.images.build_result import BuildResults, Built
from wherry.images.layers import Pins
from wherry.kernel.paths import fd_path, open_in_root
from wherry.spec.digest import ChainID

_VERSION = "1"
_PARALLEL = 16
_MEMO = 4096


class StepFailed(WherryError):
    """A command of a build ended with a status other than 0."""

    def __init__(self, message: str, status: int, node: Node, tail: bytes) -> None:
        super().__init__(message)
        self.status, self.node, self.tail = status, node, tail


class BuildSnapshotter(Protocol):
    """The part of the overlay snapshotter that steps are executed on."""

    def has(self, chain: ChainID) -> bool: ...
    def prepare(self, key: str, parent: ChainID | None, *, ephemeral: bool = False) -> None: ...
    def open_root(self, key: str, *, writable: bool = False) -> int: ...
    def open_tree(self, chain: ChainID | None) -> int: ...
    def layer_paths(self, chain: ChainID | None) -> tuple[str, ...]: ...
    def remove(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class MountSource:
    """What a RUN mount shows: layers (top first) of which `path` is to be seen, or a directory of this machine."""

    layers: tuple[str, ...] = ()
    chain: ChainID | None = None
    directory: str = ""
    ignore: Ignore | None = None


class Executor(Protocol):
    """Runs commands; the engine's. `run` returns the exit status once nothing of the command is left but `key`."""

    async def run(
        self,
        key: str,
        operation: Run,
        sources: Mapping[int, MountSource],
        output: BuildOutput,
        secrets: SecretSource | None,
        ssh: SshSource | None,
    ) -> int: ...


class Fetcher(Protocol):
    """Brings remote files and repositories as trees; each call's tree is removed by `release`."""

    async def remote(self, operation: Remote, status: Callable[[int, int], None]) -> Tree: ...
    async def git(self, operation: Git, output: BuildOutput) -> Tree: ...
    def release(self, tree: Tree) -> None: ...


@dataclass(slots=True, eq=False)
class Solved:
    """A node's tree: layers (`chain`), or files on this machine (`tree`)."""

    chain: ChainID | None = None
    tree: Tree | None = None
    record: CacheRecord | None = None
    cached: bool = False
    ignore: Ignore | None = None
    remote: bool = False


@dataclass(slots=True, eq=False)
class _Shared:
    """An execution that several builds wait for."""

    task: "asyncio.Task[CacheRecord]"
    listeners: list[Callable[[bytes, int], None]] = field(default_factory=list)
    history: list[tuple[bytes, int]] = field(default_factory=list)
    waiting: int = 0


class Solver:
    """One for all builds of a daemon."""

    def __init__(
        self,
        snapshots: BuildSnapshotter,
        results: BuildResults,
        cache: BuildCache,
        executor: Executor,
        fetcher: Fetcher,
    ) -> None:
        self.snapshots, self.results, self.cache = snapshots, results, cache
        self.executor, self.fetcher = executor, fetcher
        self.slots = asyncio.Semaphore(_PARALLEL)
        self._running: dict[str, _Shared] = {}
        self.memo: OrderedDict[tuple[str, str], list[str]] = OrderedDict()
        """Digests of selections from trees whose content has a name."""

    def remembered(self, key: str, what: str, work: Callable[[], list[str]]) -> list[str]:
        """The result of `work` for a tree of this key; computed anew where the tree has none."""
        if not key:
            return work()
        found = self.memo.get((key, what))
        if found is None:
            found = self.memo[key, what] = work()
            if len(self.memo) > _MEMO:
                self.memo.popitem(last=False)
        return found

    async def shared(
        self, key: str, work: Callable[[BuildOutput], Awaitable[CacheRecord]], listener: Callable[[bytes, int], None]
    ) -> CacheRecord:
        """The result of `work`, which is run once for all who ask for `key` meanwhile; all hear its output."""
        shared = self._running.get(key)
        if shared is None:
            shared = self._begin(key, work)
        for data, stream in shared.history:
            listener(data, stream)
        shared.listeners.append(listener)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            shared.listeners.remove(listener)
            if not shared.waiting and not shared.task.done():
                # No one wants it any more; whoever comes now begins anew.
                self._running.pop(key, None)
                shared.task.cancel()
                await asyncio.gather(shared.task, return_exceptions=True)

    def _begin(self, key: str, work: Callable[[BuildOutput], Awaitable[CacheRecord]]) -> _Shared:
        def heard(data: bytes, stream: int) -> None:
            shared.history.append((data, stream))
            for listener in list(shared.listeners):
                listener(data, stream)

        async def run() -> CacheRecord:
            try:
                async with self.slots:
                    return await work(BuildOutput(heard))
            finally:
                if self._running.get(key) is shared:
                    del self._running[key]

        shared = _Shared(asyncio.get_running_loop().create_task(run(), name=f"build step {key[:12]}"))
        shared.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._running[key] = shared
        return shared


@dataclass(slots=True, kw_only=True)
class Sources:
    """What one build may take from outside."""

    context: ContextSource
    ignore: Ignore | None = None
    ignores: Mapping[str, Ignore] = field(default_factory=dict)
    secrets: SecretSource | None = None
    ssh: SshSource | None = None
    digests: Digests = field(default_factory=Digests)


class Solve:
    """One build's run over its graph. Use as a context manager: leaving lets go of the layers it held."""

    def __init__(self, solver: Solver, sources: Sources, emit: OnEvent) -> None:
        self._solver, self._sources, self._emit = solver, sources, emit
        self._tasks: dict[int, asyncio.Task[Solved]] = {}
        self._numbers: dict[int, int] = {}
        self._pins: Pins = solver.results.pins()
        self._trees: list[Tree] = []

    def __enter__(self) -> "Solve":
        return self

    def __exit__(self, *_: object) -> None:
        self._pins.__exit__(None, None, None)
        for tree in self._trees:
            self._solver.fetcher.release(tree)
        self._solver.cache.flush()

    def record_of(self, node: Node) -> CacheRecord | None:
        """What a solved node made."""
        return self._tasks[id(node)].result().record

    async def run(self, target: Node) -> Solved:
        """Solve `target` and what it needs. The first failure ends all."""
        loop = asyncio.get_running_loop()
        nodes = list(walk(target))
        for number, node in enumerate(nodes, 1):
            self._numbers[id(node)] = number
        for node in nodes:
            self._tasks[id(node)] = loop.create_task(self._node(node), name=node.title or "build")
        tasks = list(self._tasks.values())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failures = [error for task in done if not task.cancelled() and (error := task.exception()) is not None]
            if failures:
                raise failures[0]
            return self._tasks[id(target)].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _node(self, node: Node) -> Solved:
        if not isinstance(node.operation, Copy):
            return await self._solve(node, None)
        # What is copied is read while the tree below is still being made.
        files = asyncio.ensure_future(self._files(node, node.operation))
        try:
            return await self._solve(node, files)
        finally:
            files.cancel()
            await asyncio.gather(files, return_exceptions=True)

    async def _files(self, node: Node, operation: Copy) -> list[str]:
        sources = [await asyncio.shield(self._tasks[id(found)]) for found in node.inputs[1:]]
        found: list[str] = await _uninterrupted(self._copied, operation, [Solved(), *sources])
        return found

    async def _solve(self, node: Node, files: "asyncio.Future[list[str]] | None") -> Solved:
        inputs = [await asyncio.shield(self._tasks[id(found)]) for found in node.inputs]
        operation = node.operation
        if isinstance(operation, Scratch):
            return Solved()
        if isinstance(operation, ImageTree):
            if operation.chain is not None:
                self._pins.pin(operation.chain)
            self._tell(node, "start")
            self._tell(node, "cached")
            return Solved(chain=operation.chain)
        if isinstance(operation, Context | Remote | Git):
            return await self._reported(node, lambda: self._source(node))
        return await self._reported(node, lambda: self._layer(node, inputs, files))

    async def _reported(self, node: Node, work: Callable[[], Awaitable[Solved]]) -> Solved:
        self._tell(node, "start")
        try:
            solved = await work()
        except asyncio.CancelledError:
            self._tell(node, "error", text="canceled")
            raise
        except (WherryError, OSError) as error:
            self._tell(node, "error", text=str(error))
            if isinstance(error, WherryError) and getattr(error, "node", None) is None:
                error.node = node  # type: ignore[attr-defined]
            raise
        self._tell(node, "cached" if solved.cached else "done")
        return solved

    def _tell(self, node: Node, kind: str, **fields: Any) -> None:
        if node.title:
            inputs = tuple(self._numbers[id(found)] for found in node.inputs if id(found) in self._numbers)
            number = self._numbers[id(node)]
            self._emit(
                Event(kind=kind, vertex=number, title=node.title, time_ns=time.time_ns(), inputs=inputs, **fields)
            )

    # -- sources ----------------------------------------------------------------------------------------------------

    async def _source(self, node: Node) -> Solved:
        operation = node.operation
        if isinstance(operation, Context):
            tree = await self._sources.context.tree(operation.name, ())
            ignore = self._sources.ignore if not operation.name else self._sources.ignores.get(operation.name)
            return Solved(tree=tree, ignore=ignore)
        if isinstance(operation, Remote):

            def status(current: int, total: int) -> None:
                self._tell(node, "status", name=operation.url, current=current, total=total)

            tree = await self._solver.fetcher.remote(operation, status)
        else:
            assert isinstance(operation, Git)
            output = BuildOutput(lambda data, stream: self._tell(node, "output", data=data, stream=stream))
            tree = await self._solver.fetcher.git(operation, output)
        self._trees.append(tree)
        return Solved(tree=tree, remote=True)

    # -- layers -----------------------------------------------------------------------------------------------------

    async def _layer(self, node: Node, inputs: list[Solved], files: "asyncio.Future[list[str]] | None") -> Solved:
        parent = inputs[0].chain
        copied = await files if files is not None else []
        mounts = isinstance(node.operation, Run) and any(one.input is not None for one in node.operation.mounts)
        # A thread only where something is read: the change of threads costs more than the rest.
        detail = (
            await asyncio.to_thread(self._detail, node, inputs, copied)
            if mounts
            else self._detail(node, inputs, copied)
        )
        key = hashlib.sha256(detail.encode()).hexdigest()
        if not node.ignore_cache:
            record = self._solver.cache.find(key)
            if record is not None and self._pins.pin(record.chain):
                return Solved(chain=record.chain, record=record, cached=True)
            self._explain(node, detail, parent)

        async def work(output: BuildOutput) -> CacheRecord:
            return await self._make(node, inputs, key, detail, output)

        def listener(data: bytes, stream: int) -> None:
            self._tell(node, "output", data=data, stream=stream)

        record = await self._solver.shared(key, work, listener)
        self._pins.pin(record.chain)
        return Solved(chain=record.chain, record=record)

    def _explain(self, node: Node, detail: str, parent: ChainID | None) -> None:
        """Why a step is made anew: what differs from the newest result of a step of the same words."""
        same = [record for record in self._solver.cache.records() if record.title == node.title]
        if not same:
            return
        before = json.loads(max(same, key=lambda record: record.created_ns).detail or "{}")
        now = json.loads(detail)
        changed = [name for name in now if now[name] != before.get(name)]
        if changed:
            self._tell(node, "reason", text=", ".join(_REASONS.get(name, name) for name in changed))

    def _detail(self, node: Node, inputs: list[Solved], copied: list[str]) -> str:
        """What the key is the digest of, as a JSON object. In a thread when it has mounts: contents are read."""
        operation = node.operation
        fields: dict[str, Any] = {"version": _VERSION, "below": inputs[0].chain}
        if isinstance(operation, Run):
            description = asdict(operation)
            for ignored in ("proxies", "hostname", "cgroup_parent", "resources"):
                del description[ignored]
            fields["step"] = description
            fields["mounted"] = self._mounted(operation, inputs)
        elif isinstance(operation, Copy):
            description = asdict(operation)
            description["files"] = [[file.name, hashlib.sha256(file.data).hexdigest()] for file in operation.files]
            fields["step"] = description
            fields["files"] = copied
        else:
            assert isinstance(operation, MakeDirectory)
            fields["step"] = asdict(operation)
        return json.dumps(fields, sort_keys=True)

    def _mounted(self, operation: Run, inputs: list[Solved]) -> list[str]:
        found = []
        for mount in operation.mounts:
            if mount.input is None:
                continue
            solved = inputs[mount.input]
            if solved.chain is not None:
                found.append(f"{solved.chain} {mount.mount.source}")
                continue
            source = mount.mount.source or "/"
            key = solved.tree.key if solved.tree is not None else ""
            what = f"mount {source} {_rules(solved.ignore)}"
            found += self._solver.remembered(key, what, partial(self._mounted_digest, solved, source))
        return found

    def _mounted_digest(self, solved: Solved, source: str) -> list[str]:
        with ExitStack() as stack:
            tree = self._open(solved, stack)
            return [digest_entries(tree, tree.entries(tree.resolve(source)), top=True)]

    def _copied(self, operation: Copy, inputs: list[Solved]) -> list[str]:
        found = []
        for index, text in operation.sources:
            solved = inputs[index]
            # A layer's ChainID says all of its content; of files from outside only a kept context has a name.
            key = solved.tree.key if solved.tree is not None else str(solved.chain)
            what = f"copy {text} {operation.parents} {operation.excludes} {_rules(solved.ignore)}"
            found += self._solver.remembered(key, what, partial(self._copied_digest, operation, solved, text))
        return found

    def _copied_digest(self, operation: Copy, solved: Solved, text: str) -> list[str]:
        found = []
        excludes = excluding(operation.excludes)
        with ExitStack() as stack:
            tree = self._open(solved, stack)
            for one in select(tree, text, parents=operation.parents):
                digest = digest_entries(tree, tree.entries(one.real, excludes=excludes), top=operation.parents)
                name = os.fsdecode(one.below if one.directory else one.name)
                found.append(f"{digest} {one.directory} {name}")
        return found

    def _open(self, solved: Solved, stack: ExitStack) -> SourceTree:
        if solved.tree is not None:
            root = os.open(solved.tree.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            digests = self._sources.digests
            return SourceTree(
                root, "the build context", solved.ignore, foreign_owners=True, remote=solved.remote, digests=digests
            )
        root = self._solver.snapshots.open_tree(solved.chain)
        stack.callback(os.close, root)
        return SourceTree(root, "the stage or image", digests=self._sources.digests)

    async def _make(self, node: Node, inputs: list[Solved], key: str, detail: str, output: BuildOutput) -> CacheRecord:
        operation = node.operation
        snapshot = f"build-{random.token_hex(8)}"
        snapshots = self._solver.snapshots
        parent = inputs[0].chain
        linked = isinstance(operation, Copy) and operation.link
        await asyncio.to_thread(snapshots.prepare, snapshot, None if linked else parent, ephemeral=True)
        try:
            if isinstance(operation, Run):
                await self._execute(node, operation, inputs, snapshot, output)
            else:
                await _uninterrupted(self._write, operation, inputs, snapshot)
            with self._solver.results.pins() as pins:
                built = await _uninterrupted(self._solver.results.commit, snapshot, parent, pins)
                return self._record(node, built, parent, key, detail)
        finally:
            await _uninterrupted(snapshots.remove, snapshot)

    def _record(self, node: Node, built: Built, parent: ChainID | None, key: str, detail: str) -> CacheRecord:
        # Held for this build before the maker's own hold ends.
        self._pins.pin(built.chain)
        kind = "exec" if isinstance(node.operation, Run) else "source.local"
        return self._solver.cache.add(key, built, parent, title=node.title, kind=kind, detail=detail)

    async def _execute(
        self, node: Node, operation: Run, inputs: list[Solved], snapshot: str, output: BuildOutput
    ) -> None:
        sources = {}
        for index, mount in enumerate(operation.mounts):
            if mount.input is not None:
                solved = inputs[mount.input]
                if solved.tree is not None:
                    sources[index] = MountSource(directory=solved.tree.path, ignore=solved.ignore)
                else:
                    sources[index] = MountSource(self._solver.snapshots.layer_paths(solved.chain), solved.chain)
        sources_of = self._sources
        status = await self._solver.executor.run(
            snapshot, operation, sources, output, sources_of.secrets, sources_of.ssh
        )
        if status:
            command = " ".join(operation.args)
            raise StepFailed(
                f'process "{command}" did not complete successfully: exit code: {status}',
                status,
                node,
                bytes(output.tail),
            )

    def _write(self, operation: Copy | MakeDirectory, inputs: list[Solved], snapshot: str) -> None:
        """In a thread: what COPY, ADD and WORKDIR do to the tree."""
        with ExitStack() as stack:
            root = self._solver.snapshots.open_root(snapshot, writable=True)
            stack.callback(os.close, root)
            if isinstance(operation, MakeDirectory):
                owner = owner_of(operation.user, root) if operation.user else (0, 0)
                os.close(make_directories(root, operation.path, owner))
                return
            owners = root
            if operation.link:
                owners = self._solver.snapshots.open_tree(inputs[0].chain)
                stack.callback(os.close, owners)
            owner_given = owner_of(operation.chown, owners) if operation.chown else None
            trees = [self._open(solved, stack) for solved in inputs[1:]]
            Copier(root, operation, owner_given).run(trees)


def _rules(ignore: Ignore | None) -> str:
    return "" if ignore is None else repr([(rule.text, rule.exception) for rule in ignore.rules])


async def _uninterrupted(work: Callable[..., Any], *arguments: Any) -> Any:
    """In a thread, waited for to its end whatever happens: what it works on must not be taken away beneath it."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def resolve_directory(directory: str, source: str) -> str:
    """A path inside a directory of this machine, links followed inside it only."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, source.lstrip("/") or ".")
        try:
            return os.readlink(fd_path(fd))
        finally:
            os.close(fd)
    except OSError as error:
        raise FailedPrecondition(f'"{source}": not found: {os.strerror(error.errno or 0)}', object=source) from None
    finally:
        os.close(root)


_REASONS = {
    "below": "what is below it changed",
    "step": "the instruction or its variables changed",
    "files": "the files it copies changed",
    "mounted": "what it mounts changed",
    "version": "another version of the cache",
}
