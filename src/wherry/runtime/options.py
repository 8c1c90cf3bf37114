"""Mount options as fstab and the runtime specification write them, to flags (runtime-spec config.md#mounts)."""

from __future__ import annotations

from wherry.kernel import mounts as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

# name: (mount(2) flag, mount_setattr(2) attribute, sets it)
_FLAGS = {
    "ro": (m.MS_RDONLY, m.MOUNT_ATTR_RDONLY, True),
    "rw": (m.MS_RDONLY, m.MOUNT_ATTR_RDONLY, False),
    "nosuid": (m.MS_NOSUID, m.MOUNT_ATTR_NOSUID, True),
    "suid": (m.MS_NOSUID, m.MOUNT_ATTR_NOSUID, False),
    "nodev": (m.MS_NODEV, m.MOUNT_ATTR_NODEV, True),
    "dev": (m.MS_NODEV, m.MOUNT_ATTR_NODEV, False),
    "noexec": (m.MS_NOEXEC, m.MOUNT_ATTR_NOEXEC, True),
    "exec": (m.MS_NOEXEC, m.MOUNT_ATTR_NOEXEC, False),
    "nodiratime": (m.MS_NODIRATIME, m.MOUNT_ATTR_NODIRATIME, True),
    "diratime": (m.MS_NODIRATIME, m.MOUNT_ATTR_NODIRATIME, False),
    "nosymfollow": (m.MS_NOSYMFOLLOW, m.MOUNT_ATTR_NOSYMFOLLOW, True),
    "symfollow": (m.MS_NOSYMFOLLOW, m.MOUNT_ATTR_NOSYMFOLLOW, False),
}
# The access time is one field of several values, not independent bits: setting one clears the field.
_ATIMES = {
    "noatime": (m.MS_NOATIME, m.MOUNT_ATTR_NOATIME),
    "relatime": (m.MS_RELATIME, m.MOUNT_ATTR_RELATIME),
    "strictatime": (m.MS_STRICTATIME, m.MOUNT_ATTR_STRICTATIME),
    "atime": (0, m.MOUNT_ATTR_RELATIME),
    "norelatime": (0, m.MOUNT_ATTR_STRICTATIME),
    "nostrictatime": (0, m.MOUNT_ATTR_RELATIME),
}
_SUPERBLOCK = {
    "sync": (m.MS_SYNCHRONOUS, True),
    "async": (m.MS_SYNCHRONOUS, False),
    "dirsync": (m.MS_DIRSYNC, True),
    "mand": (m.MS_MANDLOCK, True),
    "nomand": (m.MS_MANDLOCK, False),
    "iversion": (m.MS_I_VERSION, True),
    "noiversion": (m.MS_I_VERSION, False),
    "lazytime": (m.MS_LAZYTIME, True),
    "nolazytime": (m.MS_LAZYTIME, False),
    "silent": (m.MS_SILENT, True),
    "loud": (m.MS_SILENT, False),
    "remount": (m.MS_REMOUNT, True),
}
PROPAGATION = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "shared": m.MS_SHARED,
    "rshared": m.MS_SHARED | m.MS_REC,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}

# A member of a bind's options, after "bind" or "rbind": ours, not the runtime specification's.
BENEATH = "x-wherry.beneath="


def names() -> list[str]:
    """Every option that is not passed on to the file system."""
    recursive = ["r" + name for name in (*_FLAGS, *_ATIMES)]
    return [*_FLAGS, *_ATIMES, *_SUPERBLOCK, *PROPAGATION, *recursive, "bind", "rbind", "idmap", "ridmap", "tmpcopyup"]


class Attributes(NamedTuple):
    """For mount_setattr(2)."""

    set: int = 0
    clear: int = 0


class Options(NamedTuple):
    """Parsed options. `data` is what is left for the file system itself."""

    flags: int = 0
    attributes: Attributes = Attributes()
    recursive: Attributes = Attributes()
    propagation: int = 0
    bind: bool = False
    bind_recursive: bool = False
    copy_up: bool = False
    idmap: str = ""  # "", "idmap" or "ridmap"
    data: str = ""
    beneath: str = ""  # of a bind: what to mount of the source, looked up so that nothing leads out of it


def _attribute(name: str, at: tuple[int, int]) -> tuple[int, int] | None:
    """(set, clear) of mount_setattr with the option `name` added, or None when it is none."""
    add, drop = at
    if name in _ATIMES:
        return (add & ~m.MOUNT_ATTR__ATIME) | _ATIMES[name][1], drop | m.MOUNT_ATTR__ATIME
    if name in _FLAGS:
        _, bit, on = _FLAGS[name]
        return (add | bit, drop & ~bit) if on else (add & ~bit, drop | bit)
    return None


def parse(options: Iterable[str]) -> Options:
    """Options in the order given, the last one of a contradiction wins."""
    flags = propagation = 0
    plain = deep = (0, 0)
    bind = bind_recursive = copy_up = False
    idmap, beneath, data = "", "", []
    for name in options:
        if name == "defaults" or not name:
            continue
        if name in ("bind", "rbind"):
            bind, bind_recursive = True, name == "rbind"
        elif name in PROPAGATION:
            propagation = PROPAGATION[name]
        elif name in _SUPERBLOCK:
            bit, on = _SUPERBLOCK[name]
            flags = flags | bit if on else flags & ~bit
        elif (changed := _attribute(name, plain)) is not None:
            plain = changed
            if name in _FLAGS:
                bit, _, on = _FLAGS[name]
                flags = flags | bit if on else flags & ~bit
            else:
                flags = (flags & ~(m.MS_NOATIME | m.MS_RELATIME | m.MS_STRICTATIME)) | _ATIMES[name][0]
        elif name[0] == "r" and (changed := _attribute(name[1:], deep)) is not None:
            deep = changed
        elif name in ("idmap", "ridmap"):
            idmap = name
        elif name == "tmpcopyup":
            copy_up = True
        elif name.startswith(BENEATH) and bind:
            beneath = name[len(BENEATH) :]
        else:
            data.append(name)
    deeply = Attributes(*deep)
    return Options(
        *(flags, Attributes(*plain), deeply, propagation, bind, bind_recursive, copy_up, idmap, ",".join(data), beneath)
    )
