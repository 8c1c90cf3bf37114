"""Driver options of local volumes: what to mount, said as mount(8) would have it (`type`, `device`, `o`)."""

import socket
from collections.abc import Mapping
from typing import NamedTuple

from wherry.errors import InvalidArgument, Unavailable
from wherry.kernel import mounts

_KNOWN = ("type", "device", "o", "size")
_REQUIRES = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_SET = {
    "ro": mounts.MS_RDONLY,
    "nosuid": mounts.MS_NOSUID,
    "nodev": mounts.MS_NODEV,
    "noexec": mounts.MS_NOEXEC,
    "sync": mounts.MS_SYNCHRONOUS,
    "dirsync": mounts.MS_DIRSYNC,
    "noatime": mounts.MS_NOATIME,
    "nodiratime": mounts.MS_NODIRATIME,
    "relatime": mounts.MS_RELATIME,
    "strictatime": mounts.MS_STRICTATIME,
    "bind": mounts.MS_BIND,
    "rbind": mounts.MS_BIND | mounts.MS_REC,
}
_CLEAR = {
    "rw": mounts.MS_RDONLY,
    "suid": mounts.MS_NOSUID,
    "dev": mounts.MS_NODEV,
    "exec": mounts.MS_NOEXEC,
    "async": mounts.MS_SYNCHRONOUS,
    "atime": mounts.MS_NOATIME,
    "diratime": mounts.MS_NODIRATIME,
}
_NETWORK = ("nfs", "nfs4", "cifs")


class MountCall(NamedTuple):
    """The arguments of mount(2)."""

    type: str
    device: str
    flags: int
    data: str


def check_options(name: str, options: Mapping[str, str]) -> None:
    """InvalidArgument when the local driver has no use for them."""
    for key in options:
        if key not in _KNOWN:
            raise InvalidArgument(f'create {name}: invalid option: "{key}"', object=name)
    if "size" in options:
        raise InvalidArgument(f"create {name}: quota size requested but no quota support", object=name)
    for key in ("device", "type", "o"):
        for other in _REQUIRES[key] if key in options else ():
            if not options.get(other):
                raise InvalidArgument(f'create {name}: missing required option: "{other}"', object=name)


def mount_call(options: Mapping[str, str]) -> MountCall | None:
    """What is to be mounted for a volume with these options; None for a plain directory."""
    if "type" not in options:
        return None
    kind, flags, data = options["type"], 0, []
    for option in filter(None, options.get("o", "").split(",")):
        if option in _SET:
            flags |= _SET[option]
        elif option in _CLEAR:
            flags &= ~_CLEAR[option]
        elif option.startswith("addr=") and kind in _NETWORK:
            # The kernel's network file systems take numbers only.
            data.append("addr=" + _address(option[5:]))
        else:
            data.append(option)
    return MountCall(kind, options["device"], flags, ",".join(data))


def _address(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError as error:
        raise Unavailable(f"cannot resolve {host}: {error.strerror}", object=host) from None
