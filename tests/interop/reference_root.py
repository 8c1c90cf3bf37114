"""Run a command among the reference peers' programs (podman, runc, crun), with directories of this host visible to it.

    python reference_root.py HOLDER_PID DIRECTORY[:DIRECTORY...] COMMAND...

Everything happens in a mount namespace of its own, on an overlay over the peers' root: nothing of theirs is changed,
and nothing is left. HOLDER_PID is a process whose root is the peers'.
"""

import os
import sys

from wherry.kernel import mounts, namespaces

_SCRATCH = "/mnt"


def enter(holder: int, directories: list[str]) -> None:
    """Make this process's root the peers', plus `directories` at their own paths, a private /run and a private /tmp."""
    trees = [(path, mounts.open_tree(-100, path, recursive=True)) for path in directories]
    opened = [(os.open(f"/proc/{holder}/ns/{kind}", os.O_RDONLY), flag) for kind, flag in _JOINED]
    for fd, flag in opened:
        namespaces.setns(fd, flag)
        os.close(fd)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount("tmpfs", _SCRATCH, "tmpfs")
    root = f"{_SCRATCH}/root"
    for name in ("upper", "work", "root"):
        os.mkdir(f"{_SCRATCH}/{name}")
    mounts.mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={_SCRATCH}/upper,workdir={_SCRATCH}/work")
    for name in ("proc", "sys", "dev"):
        mounts.mount(f"/{name}", f"{root}/{name}", None, mounts.MS_BIND | mounts.MS_REC)
    for name in ("run", "tmp", "var/tmp"):
        mounts.mount("tmpfs", f"{root}/{name}", "tmpfs", 0, "mode=1777")
    for path, tree in trees:
        os.makedirs(root + path, exist_ok=True)
        mounts.move_mount(tree, -100, root + path, flags=0)
        os.close(tree)
    os.chdir(root)
    mounts.pivot_root(".", ".")
    mounts.umount(".", mounts.MNT_DETACH)
    os.chdir("/")


_JOINED = (("net", namespaces.CLONE_NEWNET), ("mnt", namespaces.CLONE_NEWNS))

if __name__ == "__main__":
    enter(int(sys.argv[1]), [path for path in sys.argv[2].split(":") if path])
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.execvp(sys.argv[3], sys.argv[3:])
