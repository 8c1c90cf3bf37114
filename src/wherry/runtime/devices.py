"""Device nodes, the usual links in /dev, and the terminal (runtime-spec config-linux.md#devices, #default-devices)."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios

from wherry.kernel import files, mounts
from wherry.kernel.paths import make_directories, make_file, open_in_root
from wherry.runtime.scene import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from wherry.runtime.scene import Scene
else:
    from wherry.kernel.tuples import NamedTuple

LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
)
_TIOCGPTPEER = 0x5441


class Node(NamedTuple):
    """One device. `mode` holds the type bits too."""

    path: str
    mode: int
    device: int
    uid: int = 0
    gid: int = 0


DEFAULTS = tuple(
    Node(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)


class Devices(NamedTuple):
    """Make device nodes; in a user namespace, where mknod is refused, bind the host's."""

    nodes: tuple[Node, ...]
    bind: bool = False

    def describe(self) -> str:
        return "make devices"

    def apply(self, scene: Scene) -> None:
        directories: dict[str, int] = {}
        for node in self.nodes:
            if self.bind:
                self._bind(scene, node)
                continue
            head, _, name = node.path.rpartition("/")
            if head not in directories:
                directories[head] = make_directories(scene.root, head or "/")
            self._mknod(directories[head], name, node)
        for fd in directories.values():
            os.close(fd)

    @staticmethod
    def _mknod(directory: int, name: str, node: Node) -> None:
        try:
            os.mknod(name, node.mode, node.device, dir_fd=directory)
        except FileExistsError:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode) or found.st_rdev != node.device:
                raise Refused("InvalidArgument", f"{node.path} exists in the image and is not the device asked for")
            return
        if node.uid or node.gid:
            os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)

    @staticmethod
    def _bind(scene: Scene, node: Node) -> None:
        source = os.open(node.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(source)
        if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode) or found.st_rdev != node.device:
            raise Refused("FailedPrecondition", f"{node.path} of the host is not the device asked for")
        tree = mounts.open_tree(source, "")
        target = make_file(scene.root, node.path)
        mounts.move_mount(tree, target)
        for fd in (source, tree, target):
            os.close(fd)


class Links(NamedTuple):
    """The links in /dev; what the image has there already stays."""

    links: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "make links in /dev"

    def apply(self, scene: Scene) -> None:
        directory = make_directories(scene.root, "/dev")
        for name, target in self.links:
            try:
                os.symlink(target, name, dir_fd=directory)
            except FileExistsError:
                pass
        os.close(directory)


class Console(NamedTuple):
    """A terminal of the container's own devpts; its master goes to the parent, its slave over /dev/console.

    `join`: inside the container already (exec), where /dev/console stays as it is.
    """

    uid: int
    height: int = 0
    width: int = 0
    join: bool = False

    def describe(self) -> str:
        return "open the terminal"

    def apply(self, scene: Scene) -> None:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC) if self.join else scene.root
        master = open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        # A /dev/pts that is something else could hand us any file of its maker's choice (CVE-2025-52565).
        files.require(master, files.DEVPTS_SUPER_MAGIC, "/dev/pts/ptmx")
        # The slave comes from the master itself, by no path.
        fcntl.ioctl(master, termios.TIOCSPTLCK if hasattr(termios, "TIOCSPTLCK") else 0x40045431, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if self.height or self.width:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", self.height, self.width, 0, 0))
        if self.uid:
            os.fchown(slave, self.uid, -1)
        if not self.join:
            self._cover_console(scene, slave)
        scene.console = slave
        scene.tell({"console": True}, [master])
        os.close(master)

    @staticmethod
    def _cover_console(scene: Scene, slave: int) -> None:
        target = make_file(scene.root, "/dev/console")
        tree = mounts.open_tree(slave, "")
        mounts.move_mount(tree, target)
        os.close(target)
        os.close(tree)
