"""The graph solved: each node's tree found in the cache or made, independent ones side by side, equal ones once.

A node's key is a digest of its operation, the tree below it (a ChainID: content, not history) and what it takes from
other trees (a digest of just that, without times). Two builds that come to the same key at the same time share one
execution, which ends early only when neither waits for it any more.
"""

import asyncio
import hashlib
import os
import secrets as random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from wherry.build.cache import BuildCache, CacheRecord
from wherry.build.copying import Copier, make_directories
from wherry.build.execution import BuildSnapshotter, Executor, Fetcher, MountSource, Solved, Sources, StepFailed
from wherry.build.graph import Context, Copy, Git, ImageTree, MakeDirectory, Node, Remote, Run, Scratch, walk
from wherry.build.image_cache import Candidate, ImageCache, compared, same_files, told_by_words
from wherry.build.image_cache import record as from_image
from wherry.build.keys import Memo, StepKeys, changes
from wherry.build.owners import owner_of
from wherry.build.progress import BuildOutput, Event, OnEvent
from wherry.build.request import Tree
from wherry.build.sharing import Busy, Sharing
from wherry.build.times import clamp
from wherry.errors import WherryError
from wherry.images.build_result import BuildResults, Built
from wherry.images.layers import Pins
from wherry.spec.digest import ChainID

_VERSION = "1"
_PARALLEL = 16
_MEMO = 4096


class Solver:
    """One for all builds of a daemon. `busy` holds the keys of snapshots while a step works on them."""

    def __init__(
        self,
        snapshots: BuildSnapshotter,
        results: BuildResults,
        cache: BuildCache,
        executor: Executor,
        fetcher: Fetcher,
        busy: Busy,
    ) -> None:
        self.snapshots, self.results, self.cache = snapshots, results, cache
        self.executor, self.fetcher, self.busy = executor, fetcher, busy
        self.sharing, self.memo = Sharing(), Memo()


class Solve:
    """One build's run over its graph. Use as a context manager: leaving lets go of the layers it held."""

    def __init__(
        self, solver: Solver, sources: Sources, emit: OnEvent, images: ImageCache, newest: int | None = None
    ) -> None:
        """`newest`: no file of a layer that is made is younger (nanoseconds since 1970)."""
        self._solver, self._sources, self._emit, self._images, self._newest = solver, sources, emit, images, newest
        self._keys = StepKeys(solver.memo, solver.snapshots, sources.digests, newest)
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
        found: list[str] = await _uninterrupted(self._keys.copied, operation, [Solved(), *sources])
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
            await asyncio.to_thread(self._keys.detail, node, inputs, copied)
            if mounts
            else self._keys.detail(node, inputs, copied)
        )
        key = hashlib.sha256(detail.encode()).hexdigest()
        candidates: list[Candidate] = []
        if not node.ignore_cache:
            record = self._solver.cache.find(key)
            if record is not None and self._pins.pin(record.chain):
                return Solved(chain=record.chain, record=record, cached=True)
            candidates = [found for found in self._images.candidates(node, parent) if self._pins.pin(found.chain)]
            if candidates and told_by_words(node):
                return self._taken(key, node, candidates[0])
            self._explain(node, detail)
        usable = candidates if compared(node) else []

        async def work(output: BuildOutput) -> CacheRecord:
            return await self._make(node, inputs, key, detail, output, usable)

        def listener(data: bytes, stream: int) -> None:
            self._tell(node, "output", data=data, stream=stream)

        record = await self._solver.sharing.shared(f"{key} {self._images.name}", work, listener)
        self._pins.pin(record.chain)
        return Solved(chain=record.chain, record=record, cached=record.blob is not None)

    def _taken(self, key: str, node: Node, candidate: Candidate) -> Solved:
        """An image's layer as the result of a step."""
        size = self._solver.snapshots.layer_size(candidate.chain)
        return Solved(chain=candidate.chain, record=from_image(key, node, candidate, size), cached=True)

    def _explain(self, node: Node, detail: str) -> None:
        """Why a step is made anew: what differs from the newest result of a step of the same words."""
        same = [record for record in self._solver.cache.records() if record.title == node.title]
        if same:
            reason = changes(max(same, key=lambda record: record.created_ns).detail, detail)
            if reason:
                self._tell(node, "reason", text=reason)

    async def _make(
        self,
        node: Node,
        inputs: list[Solved],
        key: str,
        detail: str,
        output: BuildOutput,
        candidates: Sequence[Candidate],
    ) -> CacheRecord:
        operation = node.operation
        snapshot = f"build-{random.token_hex(8)}"
        snapshots, busy = self._solver.snapshots, self._solver.busy
        parent = inputs[0].chain
        linked = isinstance(operation, Copy) and operation.link
        busy.hold(snapshot)
        try:
            await _uninterrupted(partial(snapshots.prepare, snapshot, None if linked else parent, ephemeral=True))
            if isinstance(operation, Run):
                await self._execute(node, operation, inputs, snapshot, output)
            else:
                await _uninterrupted(self._write, operation, inputs, snapshot)
            for candidate in candidates:
                if await _uninterrupted(self._same, snapshot, candidate):
                    found = self._taken(key, node, candidate).record
                    assert found is not None
                    return found
            if self._newest is not None:
                await _uninterrupted(clamp, self._upper(snapshot), self._newest)
            with self._solver.results.pins() as pins:
                built = await _uninterrupted(self._solver.results.commit, snapshot, parent, pins)
                return self._record(node, built, parent, key, detail)
        finally:
            try:
                await _uninterrupted(snapshots.remove, snapshot)
            finally:
                busy.release(snapshot)

    def _upper(self, snapshot: str) -> str:
        """Where what a step writes is."""
        options = self._solver.snapshots.mounts(snapshot)[0].options
        return next(option.partition("=")[2] for option in options if option.startswith("upperdir="))

    def _same(self, snapshot: str, candidate: Candidate) -> bool:
        return same_files(self._upper(snapshot), self._solver.snapshots.layer_paths(candidate.chain)[0])

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
            trees = [self._keys.open(solved, stack) for solved in inputs[1:]]
            Copier(root, operation, owner_given).run(trees)


async def _uninterrupted(work: Callable[..., Any], *arguments: Any) -> Any:
    """In a thread, waited for to its end whatever happens: what it works on must not be taken away beneath it."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
