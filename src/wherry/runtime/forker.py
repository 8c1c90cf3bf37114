"""A process that does nothing but fork, for the monitor.

After a fork every page of the parent that it writes to is copied once more, 2 to 3 microseconds each, and an
interpreter writes to hundreds on any request (reference counts). The monitor therefore never forks. This process does:
between two forks it touches next to nothing. Its children are the monitor's (CLONE_PARENT), which reaps them.

While idle it makes in advance what a container's start then does not wait for: a process in pid, ipc and uts
namespaces of its own, which has touched the pages it will need, and a network namespace. The mount namespace is made
at the start: it must show the host's mounts of that moment.

A request is [clone flags, joins a pid namespace, enters a cgroup] with descriptors: the child's end of its channel, a
pidfd, a cgroup directory. The child then reads its launch message from the channel.
"""

from __future__ import annotations

import _socket
import fcntl
import gc
import os
import select

from wherry.ipc import seqpacket
from wherry.kernel import files, mounts, namespaces, paths, processes, syscalls
from wherry.kernel import seccomp as _seccomp  # noqa: F401 - a child in its new root could no longer load it
from wherry.runtime import child, plan, setup, transfer
from wherry.runtime.scene import Scene
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGCHLD = 17
_PAUSE = 6  # milliseconds
_SPARE = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWUTS


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
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass
            self._start()
            seqpacket.send(self._control, request, fds)


def _become(control: _socket.socket, null: int) -> None:
    """The forker's whole life."""
    try:
        child.close_others({control.fileno(), null})
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
        self.network = -1  # a spare one
        self.spare: _socket.socket | None = None  # to a spare process

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while True:
            # The process just started has the better use for a processor.
            if not poll.poll(_PAUSE):
                self.make_spares()
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
                if joins or enters or not self.hand_over(channel, flags):
                    self.fork(channel, flags, join_pid, cgroup)
            except OSError as error:
                text = {"error": {"stage": "clone", "errno": error.errno, "text": str(error)}}
                seqpacket.send(channel, fastjson.dumps(text).encode())
            channel.close()
            seqpacket.close(fds[1:])

    def make_spares(self) -> None:
        try:
            if self.spare is None:
                self.spare = self._make_process()
            if self.network < 0:
                self.network = self._make_network()
        except OSError:
            return  # out of something: a start that needs it will say so

    def _make_network(self) -> int:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            setup.bring_up_loopback()
            return namespaces.open_namespace("self", "network")
        finally:
            namespaces.setns(self.own_network, namespaces.CLONE_NEWNET)

    def _make_process(self) -> _socket.socket:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        if syscalls.clone(_SPARE | namespaces.CLONE_PARENT | _SIGCHLD) == 0:
            _stand_by(theirs, self.null)
        theirs.close()
        return ours

    def take_network(self, flags: int) -> int:
        """The spare network namespace, if `flags` have a use for it: it belongs to the host's user namespace."""
        if not flags & namespaces.CLONE_NEWNET or flags & namespaces.CLONE_NEWUSER:
            return -1
        taken, self.network = self.network, -1
        return taken

    def hand_over(self, channel: _socket.socket, flags: int) -> bool:
        """Let the spare process have the work, if it has the namespaces for it."""
        if self.spare is None or flags & ~(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET) != _SPARE:
            return False
        spare, self.spare = self.spare, None
        network = self.take_network(flags)
        if network >= 0:
            flags &= ~namespaces.CLONE_NEWNET
        fds = [channel.fileno()] if network < 0 else [channel.fileno(), network]
        try:
            seqpacket.send(spare, b"%d" % (flags & ~_SPARE), fds)
        except OSError:
            return False  # killed by someone
        finally:
            spare.close()
            if network >= 0:
                os.close(network)
        return True

    def fork(self, channel: _socket.socket, flags: int, join_pid: int, cgroup: int) -> None:
        """Clone; the child never returns."""
        network = self.take_network(flags)
        if network >= 0:
            flags &= ~namespaces.CLONE_NEWNET
        if join_pid >= 0:
            namespaces.setns(join_pid, namespaces.CLONE_NEWPID)
        flags |= namespaces.CLONE_PARENT
        try:
            # clone3 refuses a signal together with CLONE_PARENT; the child's is the parent's, SIGCHLD, either way.
            pid = syscalls.clone_into(flags, 0, cgroup) if cgroup >= 0 else syscalls.clone(flags | _SIGCHLD)
            if pid == 0:
                _be_born(channel, self.null, network)
        finally:
            if join_pid >= 0:
                namespaces.setns(self.own_pid, namespaces.CLONE_NEWPID)
        if network >= 0:
            os.close(network)


def _stand_by(control: _socket.socket, null: int) -> None:
    """A spare process's life until it is needed. Never returns."""
    try:
        gc.disable()
        # Also its copy of the other end: else it would never learn of the forker's death.
        child.close_others({control.fileno(), null})
        _warm_up()
        received = seqpacket.receive(control)
        if received is None:
            os._exit(0)
        data, fds = received
        control.close()
        flags = int(data)
        channel = _socket.socket(fileno=fds[0])
        _be_born(channel, null, fds[1] if len(fds) > 1 else -1, flags)
    finally:
        os._exit(1)


def _warm_up() -> None:
    """Touch what the steps of a container touch, by calls that come to nothing: each page is then copied already."""
    operations = transfer.load(_REHEARSAL)[1]
    for operation in operations:
        operation.describe()
    attempts = (
        lambda: paths.make_directories(-1, "/x"),
        lambda: paths.make_file(-1, "/x"),
        lambda: mounts.mount("none", "/proc/self/fd/-1", "tmpfs", 0, "mode=755"),
        lambda: mounts.open_tree(-1, "x", recursive=True),
        lambda: mounts.move_mount(-1, -1, "x"),
        lambda: mounts.mount_setattr(-1, "x", set=mounts.MOUNT_ATTR_RDONLY),
        lambda: mounts.fsopen("none"),
        lambda: mounts.fsconfig_string(-1, "x", "y"),
        lambda: mounts.umount("/proc/self/fd/-1"),
        lambda: namespaces.setns(-1),
        lambda: files.magic(-1),
        lambda: os.mknod("x", 0o666, 0, dir_fd=-1),
        lambda: os.symlink("x", "x", dir_fd=-1),
        lambda: fcntl.fcntl(1 << 20, fcntl.F_DUPFD_CLOEXEC, 10),
    )
    for attempt in attempts:
        try:
            attempt()
        except OSError:
            continue


def _rehearse() -> bytes:
    """A launch message like those to come."""
    masks = [f"/proc/x{number}" for number in range(8)]
    config = {
        "process": {"args": ["x"], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 0},
        "root": {"path": "/x"},
        "hostname": "x",
        "mounts": [
            {"destination": "/proc", "type": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/x", "type": "bind", "source": "/x", "options": ["rbind", "rprivate", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network")],
            "maskedPaths": masks,
            "readonlyPaths": masks,
        },
    }
    made = plan.build(config, "x", "/x", (), plan.Host(0, {}, 1), wait=False)
    return transfer.dump({}, made.operations)


_REHEARSAL = _rehearse()


def _be_born(channel: _socket.socket, null: int, network: int, unshare: int = 0) -> None:
    """Tell the monitor our pid, which the kernel attaches, and do what it says. Never returns."""
    scene = Scene(channel, (-1, -1, -1), null)
    try:
        scene.network = network
        scene.tell({"born": True})
        if unshare:
            namespaces.unshare(unshare)
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
    scene.trees = {key: next(given) for key in header["trees"]}
    if header["start"]:
        scene.start_socket = next(given)
    if header["pidfd"]:
        scene.pidfd = next(given)
    scene.state = header["state"].encode()
