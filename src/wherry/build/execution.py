"""What the solver is given to work with, and what one build may take from outside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wherry.build.cache import CacheRecord
from wherry.build.graph import Git, Node, Remote, Run
from wherry.build.ignore import Ignore
from wherry.build.progress import BuildOutput
from wherry.build.request import ContextSource, SecretSource, SshSource, Tree
from wherry.build.trees import Digests
from wherry.errors import WherryError
from wherry.images.image import Image
from wherry.spec.digest import ChainID
from wherry.spec.mount import Mount


class StepFailed(WherryError):
    """A command of a build ended with a status other than 0."""

    def __init__(self, message: str, status: int, node: Node, tail: bytes) -> None:
        super().__init__(message)
        self.status, self.node, self.tail = status, node, tail


class BuildSnapshotter(Protocol):
    """The part of the overlay snapshotter that steps are executed on."""

    def has(self, chain: ChainID) -> bool: ...
    def layer_size(self, chain: ChainID) -> int: ...
    def prepare(self, key: str, parent: ChainID | None, *, ephemeral: bool = False) -> None: ...
    def open_root(self, key: str, *, writable: bool = False) -> int: ...
    def open_tree(self, chain: ChainID | None) -> int: ...
    def layer_paths(self, chain: ChainID | None) -> tuple[str, ...]: ...
    def mounts(self, key: str) -> tuple[Mount, ...]: ...
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


@dataclass(slots=True, kw_only=True)
class Sources:
    """What one build may take from outside."""

    context: ContextSource
    ignore: Ignore | None = None
    ignores: Mapping[str, Ignore] = field(default_factory=dict)
    secrets: SecretSource | None = None
    ssh: SshSource | None = None
    digests: Digests = field(default_factory=Digests)
    cache_from: tuple[Image, ...] = ()
    """Images whose layers are taken for steps they are the result of."""
