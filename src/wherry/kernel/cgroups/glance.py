"""The few counters of a cgroup that a table of many shows, each file read once and searched, not parsed."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

# kernfs gives no more than a page at a time; what is looked for stands at the beginning, or the file is that short.
_PAGE = 4096


class Glance(NamedTuple):
    """Nanoseconds and bytes since creation, bytes and processes now. `idle`: page cache that can be given back."""

    cpu_ns: int
    memory: int
    idle: int
    pids: int
    read: int
    written: int


def glance_v1(paths: Mapping[str, str]) -> Glance:
    """Of a cgroup on v1 or hybrid, whose directories are `paths`; what is not there is zero."""
    memory, blkio = paths.get("memory", ""), paths.get("blkio", "")
    # BFQ, where it is the scheduler, counts what the throttling layer never sees.
    moved = _read(f"{blkio}/blkio.bfq.io_service_bytes_recursive")
    if b" Read " not in moved:
        moved = _read(f"{blkio}/blkio.throttle.io_service_bytes_recursive")
    words = moved.split()
    return Glance(
        cpu_ns(paths),
        _number(_read(f"{memory}/memory.usage_in_bytes")),
        _after(_read(f"{memory}/memory.stat"), b"\ntotal_inactive_file "),
        _number(_read(f"{paths.get('pids', '')}/pids.current")),
        _sum_after(words, b"Read"),
        _sum_after(words, b"Write"),
    )


def glance_v2(path: str) -> Glance:
    """Of a cgroup on v2."""
    words = _read(f"{path}/io.stat").replace(b"=", b" ").split()
    return Glance(
        cpu_ns({"": path}),
        _number(_read(f"{path}/memory.current")),
        _after(_read(f"{path}/memory.stat"), b"\ninactive_file "),
        _number(_read(f"{path}/pids.current")),
        _sum_after(words, b"rbytes"),
        _sum_after(words, b"wbytes"),
    )


def cpu_ns(paths: Mapping[str, str]) -> int:
    """Processor time alone, in nanoseconds."""
    if "cpuacct" in paths:
        return _number(_read(f"{paths['cpuacct']}/cpuacct.usage"))
    return _after(b"\n" + _read(f"{paths['']}/cpu.stat"), b"\nusage_usec ") * 1000


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _PAGE)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _number(text: bytes) -> int:
    return int(text) if text.strip().isdigit() else 0


def _after(text: bytes, name: bytes) -> int:
    start = text.find(name)
    return 0 if start < 0 else _number(text[start + len(name) : text.find(b"\n", start + 1)])


def _sum_after(words: list[bytes], name: bytes) -> int:
    return sum(int(words[index + 1]) for index, word in enumerate(words[:-1]) if word == name)
