"""A process that does nothing but fork, for the monitor.

After a fork every page of the parent that it writes to is copied once more, 2 to 3 microseconds each, and an
interpreter writes to hundreds on any request (reference counts). The monitor therefore never forks. This process does:
between two forks it touches next to nothing. Its children are the monitor's (CLONE_PARENT), which reaps them.

While idle it also makes the next network namespace in advance: 0.5 ms that a container's start does not wait for.

A request is ["clone flags", joins a pid namespace, enters a cgroup] with descriptors: the child's end of its channel, a
pidfd, a cgroup directory. The child then reads its launch message from the channel.
"""

from __future__ import annotations

import _socket
import os

from wherry.kernel import namespaces, processes, seqpacket, syscalls
from wherry.runtime import child, setup, transfer
from wherry.runtime.scene import Scene
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGCHLD = 17


class Forker:
    """The monitor's side."""

    def __init__(self, null: int) -> None:
        self._null = null
        self._start()

    def _start(self) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _become(theirs, self._null)
        theirs.close()
        self._control = ours

    def fork(self, channel: int, flags: int, join_pid: int, cgroup: int) -> None:
        """Ask for a child that talks over `channel`. It says itself that it was born, or there is an end of file."""
        fds = [fd for fd in (channel, join_pid, cgroup) if fd >= 0]
        request = fastjson.dumps([flags, join_pid >= 0, cgroup >= 0]).encode()
        try:
            seqpacket.send(self._control, request, fds)
        except OSError:
            # Killed by someone: another one, from this process as it is now.
            self._control.close()
            os.waitpid(self._pid, 0)
            self._start()
            seqpacket.send(self._control, request, fds)


def _become(control: _socket.socket, null: int) -> None:
    """The forker's whole life."""
    try:
        keep = sorted((control.fileno(), null))
        processes.close_range(3, keep[0] - 1) if keep[0] > 3 else None
        processes.close_range(keep[0] + 1, keep[1] - 1) if keep[1] > keep[0] + 1 else None
        processes.close_range(keep[1] + 1)
        processes.set_name("wherry-forker")
        _Forking(control, null).serve()
    finally:
        os._exit(1)


class _Forking:
    def __init__(self, control: _socket.socket, null: int) -> None:
        self.control = control
        self.null = null
        self.own_pid = namespaces.open_namespace("self", "pid")
        self.own_network = namespaces.open_namespace("self", "network")
        self.spare = -1

    def serve(self) -> None:
        while True:
            self.make_spare()
            received = seqpacket.receive(self.control)
            if received is None:
                os._exit(0)  # the monitor is gone
            data, fds = received
            flags, joins, enters = fastjson.loads(data)
            rest = iter(fds[1:])
            join_pid = next(rest) if joins else -1
            cgroup = next(rest) if enters else -1
            channel = _socket.socket(fileno=fds[0])
            try:
                self.fork(channel, flags, join_pid, cgroup)
            except OSError as error:
                text = {"error": {"stage": "clone", "errno": error.errno, "text": str(error)}}
                seqpacket.send(channel, fastjson.dumps(text).encode())
            channel.close()
            seqpacket.close(fds[1:])

    def make_spare(self) -> None:
        if self.spare >= 0:
            return
        try:
            namespaces.unshare(namespaces.CLONE_NEWNET)
        except OSError:
            return  # out of namespaces: the clone will say so
        try:
            setup.bring_up_loopback()
            self.spare = namespaces.open_namespace("self", "network")
        finally:
            namespaces.setns(self.own_network, namespaces.CLONE_NEWNET)

    def fork(self, channel: _socket.socket, flags: int, join_pid: int, cgroup: int) -> None:
        """Clone; the child never returns."""
        spare = -1
        # A namespace made here belongs to the host's user namespace: not for a container with one of its own.
        if flags & namespaces.CLONE_NEWNET and not flags & namespaces.CLONE_NEWUSER and self.spare >= 0:
            spare, self.spare = self.spare, -1
            flags &= ~namespaces.CLONE_NEWNET
        if join_pid >= 0:
            namespaces.setns(join_pid, namespaces.CLONE_NEWPID)
        flags |= namespaces.CLONE_PARENT
        try:
            # clone3 refuses a signal together with CLONE_PARENT; the child's is the parent's, SIGCHLD, either way.
            pid = syscalls.clone_into(flags, 0, cgroup) if cgroup >= 0 else syscalls.clone(flags | _SIGCHLD)
            if pid == 0:
                _be_born(channel, self.null, spare)
        finally:
            if join_pid >= 0:
                namespaces.setns(self.own_pid, namespaces.CLONE_NEWPID)
        if spare >= 0:
            os.close(spare)


def _be_born(channel: _socket.socket, null: int, network: int) -> None:
    """Tell the monitor our pid, which the kernel attaches, and do what it says. Never returns."""
    scene = Scene(channel, (-1, -1, -1), null)
    try:
        scene.network = network
        scene.tell({"born": True})
        received = seqpacket.receive(channel)
        if received is None:
            os._exit(1)
        header, operations = transfer.load(received[0])
        _take_descriptors(scene, header, received[1])
        child.run(operations, scene)
    except BaseException as error:  # noqa: BLE001 - a forked child has no one above it
        scene.tell({"error": {"stage": "read the launch message", "errno": 0, "text": repr(error)}})
    finally:
        os._exit(1)


def _take_descriptors(scene: Scene, header: dict[str, Any], fds: list[int]) -> None:
    given = iter(fds)
    stdin, stdout, stderr = [next(given) if there else -1 for there in header["stdio"]]
    scene.stdio = (stdin, stdout, stderr)
    scene.cgroup_entries = [next(given) for _ in range(header["entries"])]
    scene.trees = {key: next(given) for key in header["trees"]}
    if header["start"]:
        scene.start_socket = next(given)
    if header["pidfd"]:
        scene.pidfd = next(given)
    scene.state = header["state"].encode()
