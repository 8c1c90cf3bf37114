"""The graph a build is: nodes, each an operation on the trees of others. Plain data; nothing here does anything.

A node's tree is known by the operation and its inputs' trees; how it is made is the solver's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from wherry.build.dockerfile.mounts import Mount
from wherry.build.dockerfile.source import Span
from wherry.spec.digest import ChainID
from wherry.spec.docker import Ulimit
from wherry.spec.oci_image import ImageConfig


@dataclass(frozen=True, slots=True)
class Scratch:
    """Nothing at all."""


@dataclass(frozen=True, slots=True)
class ImageTree:
    """The tree of an image that is here already; `image` is its id."""

    reference: str
    chain: ChainID | None
    image: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """The build context (name "") or a named one that is a directory."""

    name: str


@dataclass(frozen=True, slots=True)
class Remote:
    """One file from a URL. `checksum` "sha256:..." or ""."""

    url: str
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Git:
    """A repository's tree at a reference. `checksum`: what the commit's id must begin with."""

    remote: str
    reference: str = ""
    subdirectory: str = ""
    keep_git_dir: bool = False
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class RunMount:
    """A mount of a step; `input` is the index of the node whose tree it shows, None where it shows none."""

    mount: Mount
    input: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command in the tree of input 0.

    `proxies` are variables that reach the command but do not count for the cache. `script`: (name, text) of a
    here-document that is itself a program.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    proxies: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    network: str = "default"
    security: str = "sandbox"
    mounts: tuple[RunMount, ...] = ()
    script: tuple[str, str] | None = None
    hostname: str = ""
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    resources: tuple[tuple[str, int | str], ...] = ()
    """Fields of a HostConfig: memory, cpu_shares and their like. They count for no key."""


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A here-document of COPY."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Sources into the tree of input 0. `sources`: (index of the input, path in it); `target` is absolute.

    `unpack`: archives are unpacked where they are local ("auto"), always, or never.
    """

    sources: tuple[tuple[int, str], ...]
    files: tuple[InlineFile, ...] = ()
    target: str
    chown: str = ""
    chmod: str = ""
    parents: bool = False
    excludes: tuple[str, ...] = ()
    link: bool = False
    unpack: str = "never"
    add: bool = False


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """WORKDIR: `path`, absolute, with what lacks above it; new ones belong to `user`."""

    path: str
    user: str = ""


Operation = Scratch | ImageTree | Context | Remote | Git | Run | Copy | MakeDirectory


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation. `title` as progress shows it; `ignore_cache`: made anew whatever is known of it.

    `number` and `total` are its place among its stage's steps, 0 for a source.
    """

    operation: Operation
    inputs: tuple["Node", ...] = ()
    title: str = ""
    stage: str = ""
    span: Span | None = None
    ignore_cache: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of the image's history: `node` for one that makes a layer."""

    created_by: str
    node: Node | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to solve, and what becomes of it: the configuration is complete but for layers and times."""

    result: Node
    config: ImageConfig
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    outline: tuple[tuple[str, Node | None], ...] = ()
    """Every instruction that is carried out, in the order of the file, with its node where it has one."""


def walk(node: Node) -> Iterator[Node]:
    """Every node below `node` and itself, inputs first, each once."""
    seen: set[int] = set()
    waiting: list[tuple[Node, bool]] = [(node, False)]
    while waiting:
        current, expanded = waiting.pop()
        if expanded:
            yield current
        elif id(current) not in seen:
            seen.add(id(current))
            waiting.append((current, True))
            waiting.extend((found, False) for found in reversed(current.inputs))
