"""A root file system with nothing but busybox, made from the distribution's busybox-static package."""

import io
import tarfile
from pathlib import Path
from typing import BinaryIO

from wherry.images.hosttools import download_package, run_tool, unpack_package

_DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "lib": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/spool": 0o755,
    "var/spool/mail": 0o755,
    "var/tmp": 0o1777,
    "var/www": 0o755,
}
_FILES = {
    "etc/group": (
        0o644,
        "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nmail:x:8:\nwheel:x:10:root\n"
        "www-data:x:33:\nbackup:x:34:\noperator:x:37:\nutmp:x:43:\nusers:x:100:\nnobody:x:65534:\n",
    ),
    "etc/passwd": (
        0o644,
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\n"
        "sys:x:3:3:sys:/dev:/bin/false\nsync:x:4:100:sync:/bin:/bin/sync\nmail:x:8:8:mail:/var/spool/mail:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\noperator:x:37:37:Operator:/var:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    ),
    "etc/shadow": (
        0o640,
        "".join(
            f"{user}:*:10933:0:99999:7:::\n"
            for user in ("root", "daemon", "bin", "sys", "sync", "mail", "www-data", "operator", "nobody")
        ),
    ),
    "etc/nsswitch.conf": (0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
}


def make_busybox(scratch: Path, out: BinaryIO) -> None:
    """Write the root file system as a tar; `scratch` is a directory of the caller's to work in."""
    tree = scratch / "busybox"
    unpack_package(download_package("busybox-static", scratch), tree)
    # Debian moved /bin into /usr: the package has one or the other.
    binary = next(path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.is_file())
    applets = sorted(set(run_tool([str(binary), "--list"]).split()) - {"busybox"})
    write_rootfs(binary.read_bytes(), applets, out)


def write_rootfs(binary: bytes, applets: list[str], out: BinaryIO) -> None:
    """The tar itself: the same input gives the same bytes (no times, no names of this host)."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in _DIRECTORIES.items():
            tar.addfile(_entry(name, tarfile.DIRTYPE, mode))
        _add_file(tar, "bin/busybox", 0o755, binary)
        for applet in applets:
            link = _entry(f"bin/{applet}", tarfile.LNKTYPE, 0o755)
            link.linkname = "bin/busybox"
            tar.addfile(link)
        # Scripts name /usr/bin/env; everything else is found by PATH.
        env = _entry("usr/bin/env", tarfile.SYMTYPE, 0o777)
        env.linkname = "../../bin/env"
        tar.addfile(env)
        for name, (mode, text) in _FILES.items():
            _add_file(tar, name, mode, text.encode())


def _add_file(tar: tarfile.TarFile, name: str, mode: int, data: bytes) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    return entry
