"""What operations act on, in the forked child, between clone and exec.

A plan is a list of operations: immutable records, each able to `describe()` itself and to `apply(scene)`. They run in
order in the child. The first exception ends the child; its stage (the description), errno and text cross the channel.
"""

from __future__ import annotations

import errno

from wherry.ipc import seqpacket
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, Protocol

    class Operation(Protocol):
        """One step of making a container or a process in it."""

        def describe(self) -> str:
            """The step in a few words, for errors and `--dry-run`."""

        def apply(self, scene: Scene) -> None:
            """Do it; OSError when the kernel refuses."""


class Refused(Exception):
    """An operation's own refusal: `kind` names a class of wherry.errors, the text is the whole message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Scene:
    """Descriptors and facts the operations share. All descriptors here are close-on-exec."""

    __slots__ = (
        "_heard",
        "channel",
        "confinement",
        "console",
        "init",
        "inside",
        "mask",
        "mounts",
        "network",
        "null",
        "pidfd",
        "preserve",
        "root",
        "start_socket",
        "state",
        "stdio",
        "trees",
    )

    def __init__(self, channel: _socket.socket, stdio: tuple[int, int, int], null: int) -> None:
        self.channel = channel  # SOCK_SEQPACKET to the parent; its closing by exec says "it runs"
        self.stdio = stdio  # -1: none
        self.confinement = -1  # where the AppArmor profile of the next exec is written
        self.null = null  # the host's /dev/null, verified
        self.root = -1  # O_PATH of the new root directory
        self.trees: dict[str, int] = {}  # detached mounts the parent prepared, by the key of their operation
        self.console = -1  # pty slave
        self.init = -1  # the program of --init, in memory
        self.inside = False  # the working directory is set and verified
        self.mounts = -1  # the mount namespace to return to, when it is not the container's own
        self.mask = -1  # a detached empty read-only tmpfs
        self.state = b""  # what hooks read
        self.pidfd = -1  # of the process whose namespaces are joined (exec)
        self.network = -1  # a network namespace made in advance, its loopback up
        self.preserve = 0  # descriptors from 3 on that the program shall have
        self._heard: dict[bytes, list[int]] = {}
        self.start_socket = -1  # listening: the process waits here for `start`

    def tell(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send one message to the parent, with descriptors."""
        seqpacket.send(self.channel, fastjson.dumps(message).encode(), fds or ())

    def hear(self, word: bytes) -> list[int]:
        """Wait for the parent's word, one of b"cgroup", b"mapped", b"hooked", b"go"; the descriptors with it.

        Words come in any order. Should the parent die, so does this process: nothing unknown ever runs.
        """
        while word not in self._heard:
            received = seqpacket.receive(self.channel)
            if received is None:
                raise OSError(errno.EPIPE, "the runtime went away")
            self._heard[received[0]] = received[1]
        return self._heard.pop(word)

    def warn(self, text: str) -> None:
        """Something asked for could not be done in full, and the container starts all the same."""
        self.tell({"warning": text})
