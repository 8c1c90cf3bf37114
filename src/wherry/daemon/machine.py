"""What the daemon needs of the machine, checked before anything is touched."""

import ctypes
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from wherry.errors import FailedPrecondition

_FILES = 1 << 16
_M_ARENA_MAX = -8  # malloc.h
_KERNEL = (5, 6)
"""openat2, pidfd_getfd and clone3 into a cgroup are there (Linux 5.6, 5.7)."""
_LIBRARIES = (
    ("libnftables.so.1", "libnftables1", "nftables-libs", "publishing ports and the bridge network"),
    ("libseccomp.so.2", "libseccomp2", "libseccomp", "system call filters"),
)


def check_machine() -> None:
    """FailedPrecondition naming everything that is missing, and the package or step that gives it."""
    missing = list(_missing())
    if missing:
        raise FailedPrecondition("this machine lacks what the daemon needs:\n  - " + "\n  - ".join(missing))


def _missing() -> Iterator[str]:
    if os.geteuid() != 0:
        yield "root: start the daemon as root (rootless mode is not supported yet)"
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < _KERNEL:
        yield f"Linux {_KERNEL[0]}.{_KERNEL[1]} or newer (this is {release})"
    for library, debian, fedora, purpose in _LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            yield f"{library} ({purpose}): apt-get install {debian}, or dnf install {fedora}"
    if not _has_overlay():
        yield "the overlay file system: modprobe overlay (kernel option CONFIG_OVERLAY_FS)"
    if not _has_cgroups():
        yield "cgroups at /sys/fs/cgroup: mount cgroup2 there, or the v1 hierarchies (package cgroupfs-mount)"


def _has_overlay() -> bool:
    # A module that is not loaded yet is listed for modprobe, which mount(2) asks for by itself.
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        return True
    modules = Path("/lib/modules", platform.release())
    return any("/overlay.ko" in _read(modules / name) for name in ("modules.dep", "modules.builtin"))


def _has_cgroups() -> bool:
    root = Path("/sys/fs/cgroup")
    return (root / "cgroup.controllers").exists() or ((root / "memory").is_dir() and (root / "devices").is_dir())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def set_limits() -> None:
    """What this process and those it starts need; before there are threads.

    Every container is 3 descriptors here, in the monitor and in the logger, and 1024 is the usual soft limit. glibc
    gives every thread a heap of its own, which never shrink: 30 MB after a burst of starts.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
