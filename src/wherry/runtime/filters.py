"""Seccomp profiles made ready: those nobody has compiled yet are compiled by a child with a deadline.

libseccomp takes for ever over some conditions (2.5.4, several comparisons of one argument), and whoever asks for such a
profile, in error or in malice, must not keep the monitor from everyone else's containers. What is known, in memory or
on disk, costs nothing here; what took too long once is refused at once when it comes again.
"""

from __future__ import annotations

import errno
import os
import resource
import time

from wherry.errors import InvalidArgument, Unavailable
from wherry.kernel import processes, seccomp, syscalls
from wherry.runtime.child import close_others
from wherry.runtime.waiting import Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.runtime.waiting import Waiting

DEADLINE = 15.0
"""Seconds; docker's default profile takes 0.05."""
_AT_ONCE = 4
_PAUSE = 0.005
_MEMORY = 1 << 30
_SIGCHLD, _SIGKILL = 17, 9
_MAX_PROGRAM = 1 << 20
_PR_SET_PDEATHSIG = 1

_too_hard: dict[bytes, None] = {}
_running: set[bytes] = set()
"""The keys of those that are being compiled."""


def prepare(profile: Mapping[str, Any] | None, cache: str) -> Waiting[None]:
    """Have `seccomp.compile(profile, cache)` answer at once. InvalidArgument: it is wrong, or takes too long."""
    if not profile or profile.get("listenerPath"):
        return
    key = seccomp.key_of(profile)
    if not (yield from _turn(key, cache)):
        return
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = syscalls.clone(_SIGCHLD)
    if pid == 0:
        _compile(profile, writing)
    os.close(writing)
    _running.add(key)
    try:
        said = yield from _read(reading)
    finally:
        _running.discard(key)
        os.close(reading)
        try:
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    if said is None or not said:
        while len(_too_hard) >= 64:
            del _too_hard[next(iter(_too_hard))]
        _too_hard[key] = None
        raise _refusal()
    if said[:1] != b"P":
        number, _, text = said.decode(errors="replace").partition(" ")
        if int(number) in (errno.EINVAL, errno.EOPNOTSUPP):
            raise InvalidArgument(text, object="seccomp")
        raise OSError(int(number), text)
    seccomp.remember(key, cache, said[1:])


def _turn(key: bytes, cache: str) -> Waiting[bool]:
    """Wait for whoever compiles the same, and for others as long as they may take; False: it is known by now."""
    end = time.monotonic() + DEADLINE
    while True:
        if key in _too_hard:
            raise _refusal()
        if seccomp.is_known(key, cache):
            return False
        if key not in _running and len(_running) < _AT_ONCE:
            return True
        if key not in _running and time.monotonic() > end:
            raise Unavailable("too many seccomp profiles are being compiled", hint="try again in some seconds")
        yield _PAUSE


def _refusal() -> InvalidArgument:
    return InvalidArgument(
        f"the seccomp profile cannot be compiled in {DEADLINE:g} s",
        object="seccomp",
        hint="simplify its conditions on arguments",
    )


def _read(fd: int) -> Waiting[bytes | None]:
    """All that the child says; None when it has not ended in time."""
    end = time.monotonic() + DEADLINE
    said = b""
    while True:
        left = end - time.monotonic()
        if left <= 0 or len(said) > _MAX_PROGRAM:
            return None
        yield Wait((fd,), left)
        if end - time.monotonic() <= 0:
            return None
        piece = os.read(fd, 65536)
        if not piece:
            return said
        said += piece


def _compile(profile: Mapping[str, Any], fd: int) -> None:
    """The child's whole life; never returns."""
    try:
        processes.prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        close_others({fd})
        for limit, value in ((resource.RLIMIT_CPU, int(DEADLINE) + 1), (resource.RLIMIT_AS, _MEMORY)):
            resource.setrlimit(limit, (value, value))
        said = b"P" + seccomp.build(profile)
    except OSError as error:
        said = f"{error.errno} {error.strerror}".encode()
    except BaseException:  # noqa: BLE001 - a forked child has no one above it
        os._exit(1)
    try:
        while said:
            said = said[os.write(fd, said) :]
    finally:
        os._exit(0)
