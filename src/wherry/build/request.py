"""What a build is asked to do, and what it is given to do it with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wherry.build.dockerfile.source import Source
from wherry.images.image import Image
from wherry.spec.docker import Ulimit
from wherry.spec.platform import Platform


class Tree(Protocol):
    """A directory of files to copy from, read-only while it is used.

    `path` is on this machine; nothing may be added to or taken from it meanwhile. `key` names its whole content where
    that is known without reading it ("" where not): the same key is the same content.
    """

    @property
    def path(self) -> str: ...
    @property
    def key(self) -> str: ...


class ContextSource(Protocol):
    """Where the context and named contexts come from. Asked only for what the target needs, once for each name.

    `wanted` are the paths (with wildcards) the build will read, () for all: a source may bring only these. NotFound
    when there is no such context. What it made for the build it removes in `close`.
    """

    async def tree(self, name: str, wanted: tuple[str, ...]) -> Tree: ...
    async def close(self) -> None: ...


class SecretSource(Protocol):
    """RUN --mount=type=secret: the value, or None for one that was not given."""

    async def secret(self, id: str) -> bytes | None: ...


class SshSource(Protocol):
    """RUN --mount=type=ssh: a unix socket on this machine that leads to the agent `id`, or None."""

    async def agent(self, id: str) -> str | None: ...


class ImageSource(Protocol):
    """Base images: from the store, pulled where they lack (or always, with `pull`)."""

    async def image(self, reference: str, platform: Platform, *, pull: bool) -> Image: ...


@dataclass(frozen=True, slots=True)
class NamedContext:
    """--build-context: `kind` is "local" (a directory the ContextSource has), "image", "git" or "url"."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build of one platform. `build_args` of None is a name without value: as if it were not given.

    `no_cache`: nothing is taken from the cache; `no_cache_stages`: not for these stages.
    """

    dockerfile: Source
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    platform: Platform | None = None
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    entitlements: frozenset[str] = frozenset()
    """Of "network.host" and "security.insecure", those that are granted."""
    resources: tuple[tuple[str, int | str], ...] = ()
    """Limits of every RUN step, as fields of a HostConfig."""
