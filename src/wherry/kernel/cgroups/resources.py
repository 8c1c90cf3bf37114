"""Reading an OCI `linux.resources` object: what both layouts have in common."""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Protocol
else:
    Protocol = object

THROTTLES = (
    ("throttleReadBpsDevice", "read_bps", "rbps"),
    ("throttleWriteBpsDevice", "write_bps", "wbps"),
    ("throttleReadIOPSDevice", "read_iops", "riops"),
    ("throttleWriteIOPSDevice", "write_iops", "wiops"),
)
"""OCI key, v1's word for it in blkio.throttle.*_device, v2's key in io.max."""


class Files(Protocol):
    """The files of one cgroup by controller: the real one, or a recording fake."""

    def write(self, controller: str, name: str, value: str) -> None:
        """OSError: ENOENT when the controller is not there."""

    def write_lines(self, controller: str, name: str, lines: Sequence[str]) -> None:
        """One write for each."""

    def read(self, controller: str, name: str) -> str:
        """The text; "" when there is no such file."""


def section(resources: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A sub-object, {} when absent or null."""
    found = resources.get(name)
    if found is None:
        return {}
    if not hasattr(found, "items"):
        raise invalid(name, "an object", found)
    return found  # type: ignore[no-any-return]


def entries(resources: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    """A list of objects, empty when absent or null."""
    found = resources.get(name) or ()
    if isinstance(found, str) or any(not hasattr(entry, "items") for entry in found):
        raise invalid(name, "a list of objects", found)
    return found


def integer(values: Mapping[str, Any], name: str) -> int | None:
    """A number, None when absent or null."""
    found = values.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int):
        raise invalid(name, "an integer", found)
    return found


def text(values: Mapping[str, Any], name: str) -> str:
    """A string of one line, "" when absent or null."""
    found = values.get(name)
    if found is None:
        return ""
    if not isinstance(found, str) or "\n" in found:
        raise invalid(name, "a string of one line", found)
    return found


def device_number(entry: Mapping[str, Any]) -> str:
    """MAJOR:MINOR of an entry of blockIO."""
    return f"{integer(entry, 'major') or 0}:{integer(entry, 'minor') or 0}"


def page_size(entry: Mapping[str, Any]) -> str:
    """The `pageSize` of a hugepage limit, as it stands in file names: 64KB, 2MB, 1GB."""
    size = text(entry, "pageSize")
    if not size[:-2].isdigit() or size[0] == "0" or size[-2:] not in ("KB", "MB", "GB"):
        raise invalid("hugepageLimits.pageSize", "a size such as 2MB", size)
    return size


def rdma_lines(resources: Mapping[str, Any]) -> list[str]:
    """Lines for rdma.max, which is the same file in both layouts."""
    lines = []
    for device, limits in section(resources, "rdma").items():
        words = [device]
        for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            value = integer(limits, key)
            if value is not None:
                words.append(f"{word}={value}")
        if len(device.split()) != 1:
            raise invalid("rdma", "objects by device name", device)
        lines.append(" ".join(words))
    return lines


def memory_pair(memory: Mapping[str, Any]) -> tuple[int, int]:
    """(limit, memory + swap), where 0 means untouched and -1 unlimited."""
    limit, total = integer(memory, "limit") or 0, integer(memory, "swap") or 0
    if limit == -1 and total == 0:
        total = -1  # a limit on the sum would still bind
    if total > 0 and limit > total:
        raise OSError(
            errno.EINVAL, f"memory limit {limit} is larger than the limit of memory and swap together, {total}"
        )
    return limit, total


def invalid(name: str, expected: str, found: object) -> OSError:
    """OSError(EINVAL) for a value of the wrong shape."""
    return OSError(errno.EINVAL, f"linux.resources: {name} must be {expected}, not {found!r}")


def unsupported(what: str, layout: str) -> OSError:
    """OSError(EOPNOTSUPP): this layout has no means for it."""
    return OSError(errno.EOPNOTSUPP, f"linux.resources: {what} cannot be done with cgroup {layout}")
