"""What a cgroup is to its callers, whatever the host's layout.

Terms. A *cgroup* here is the one group of one container: on v2 a directory, on v1 a directory of the same name in every
hierarchy, on a hybrid host both. Its *path* is the OCI `linux.cgroupsPath`: absolute means below the hierarchies' mount
points, relative means below (v1) or beside (v2) the caller's own group.

Life cycle. create → apply → a process enters → apply again, freeze, thaw, stats → kill → delete. `create` is idempotent
and makes missing parents; `delete` is idempotent, also removes groups made inside, and leaves the parents.

Entering. Moving a process by its pid takes a lock whose price is a grace period of the kernel: 5 to 10 ms on an idle
machine. Two ways cost nothing: clone3(CLONE_INTO_CGROUP) with `enter_fd()` for v2 and the v2 half of a hybrid, and
`entry_fds()`, to each of which a single-threaded process writes b"0" for itself (0.1 ms for eight v1 hierarchies).

    group = cgroup("/wherry/4f1c...")
    group.create()
    group.apply(config["linux"]["resources"])
    into, fds = group.enter_fd(), group.entry_fds()
    # fork with CLONE_INTO_CGROUP if into is not None; in the child: for fd in fds: os.write(fd, b"0")

Waiting. `freeze` and `delete` wait for the kernel, which tells nobody when it is done. `freezing` and `deleting` are
the same for those who have other things to do: they yield how long to leave it alone, in seconds, until all is done.

Errors are OSError with the file and the value that did not fit: EINVAL for a value that is wrong anywhere, ENOENT for a
controller this host does not have, EOPNOTSUPP for what this layout cannot express, the kernel's own otherwise.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, NamedTuple, Protocol

    from wherry.kernel.cgroups.glance import Glance
else:
    from wherry.kernel.tuples import NamedTuple

    Protocol = object


class CpuStats(NamedTuple):
    """Nanoseconds, but for the two counts of CFS periods. `per_cpu_ns` is empty on v2."""

    total_ns: int
    user_ns: int
    kernel_ns: int
    per_cpu_ns: tuple[int, ...]
    periods: int
    throttled_periods: int
    throttled_ns: int


class MemoryStats(NamedTuple):
    """Bytes; a limit of None is unlimited, a peak of None unknown. `swap` is memory+swap on v1, swap alone on v2."""

    usage: int
    peak: int | None
    limit: int | None
    failures: int
    swap: int
    swap_limit: int | None
    detail: dict[str, int]
    """memory.stat as the kernel writes it; its keys differ between v1 and v2."""


class IoEntry(NamedTuple):
    """One counter of one block device. `op` as the kernel's layout spells it: "Read" on v1, "read" on v2."""

    major: int
    minor: int
    op: str
    value: int


class HugetlbStats(NamedTuple):
    """Bytes, of one page size."""

    usage: int
    peak: int | None
    failures: int


class CgroupStats(NamedTuple):
    """Counters since creation, and levels, read in one pass."""

    version: int
    """1 or 2: how `memory.detail` and `io_*` are spelled."""
    cpu: CpuStats
    memory: MemoryStats
    pids: int
    pids_limit: int | None
    io_bytes: tuple[IoEntry, ...]
    io_operations: tuple[IoEntry, ...]
    hugetlb: dict[str, HugetlbStats]


class Cgroup(Protocol):
    """One cgroup of one container. See the module's head for terms, life cycle, entering and errors."""

    paths: Mapping[str, str]
    """Directory by controller ("memory", "name=systemd"); "" is the v2 one, on v2 and hybrid hosts."""

    def create(self) -> None:
        """Make the directories and what they need before a process can enter."""

    def enter_fd(self) -> int | None:
        """A new descriptor of the v2 directory for clone3, or None on pure v1. The caller closes it.

        Where a manager inside has made groups of its own, which leaves the container's unfit for processes, it is the
        one in which the container's oldest process is.
        """

    def entry_fds(self) -> list[int]:
        """New descriptors; by writing b"0" to each, a single-threaded process enters what CLONE_INTO_CGROUP leaves out.

        They work after the process has lost its privileges or the view of the host, but a cgroup namespace must be
        made after entering. The caller closes them.
        """

    def add(self, pid: int) -> None:
        """Move the process `pid` in, wherever it was."""

    def apply(self, resources: Mapping[str, Any]) -> None:
        """Set what an OCI `linux.resources` object names, and nothing else; may be repeated with other values."""

    def processes(self) -> list[int]:
        """Every process in the group and in groups made inside, sorted; empty when the group does not exist."""

    def freeze(self) -> None:
        """Stop every process and return when they stand; TimeoutError after 10 s, and then they run again."""

    def freezing(self) -> Iterator[float]:
        """`freeze`, in steps."""

    def thaw(self) -> None:
        """Undo freeze; harmless when not frozen."""

    def frozen(self) -> bool:
        """Whether the group is frozen or about to be."""

    def kill(self) -> None:
        """SIGKILL to every process, also those being forked meanwhile and frozen ones. Does not wait for their end."""

    def oom_kills(self) -> int:
        """How many processes the kernel killed here for want of memory; 0 where it does not count."""

    def stats(self) -> CgroupStats:
        """All counters. Controllers that are not there read as zero."""

    def glance(self) -> Glance:
        """Those of the counters that a table of many groups shows: a fifth of the price of `stats`."""

    def cpu_ns(self) -> int:
        """Of these the processor time."""

    def delete(self, timeout: float = 2.0) -> None:
        """Remove the group; OSError(EBUSY) when processes are still in it after `timeout` seconds."""

    def deleting(self, timeout: float = 2.0) -> Iterator[float]:
        """`delete`, in steps."""
