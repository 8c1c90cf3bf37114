"""Owners of a tree that is seen through a user namespace: those the archive names, and those on this host."""

import struct
from typing import NamedTuple

from wherry.errors import InvalidArgument

_NOBODY = 65534
_REVISION, _V2, _V3 = 0xFF000000, 0x02000000, 0x03000000
_CAPABILITY = b"security.capability"


class Ids(NamedTuple):
    """Ranges of users and of groups: (first in the archive, first on this host, how many)."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The archive's owner for one on this host; what it cannot name is nobody's."""
        return _inside(uid, self.uids), _inside(gid, self.gids)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """This host's owner for one of the archive's; InvalidArgument when there is none."""
        return _outside(uid, self.uids), _outside(gid, self.gids)

    def xattr_inside(self, name: bytes, value: bytes) -> bytes:
        """File capabilities that count in the namespace, as an archive has them: without naming its root."""
        if name == _CAPABILITY and len(value) == 24:
            magic, *sets, root = struct.unpack("<6I", value)
            if magic & _REVISION == _V3 and root == _outside(0, self.uids):
                return struct.pack("<5I", magic & ~_REVISION | _V2, *sets)
        return value

    def xattr_outside(self, name: bytes, value: bytes) -> bytes:
        """File capabilities for the namespace, and not for the host's root."""
        if name == _CAPABILITY and len(value) == 20:
            magic, *sets = struct.unpack("<5I", value)
            if magic & _REVISION == _V2:
                return struct.pack("<6I", magic & ~_REVISION | _V3, *sets, _outside(0, self.uids))
        return value


def _inside(id: int, ranges: tuple[tuple[int, int, int], ...]) -> int:
    for first, host, size in ranges:
        if host <= id < host + size:
            return first + id - host
    return _NOBODY


def _outside(id: int, ranges: tuple[tuple[int, int, int], ...]) -> int:
    for first, host, size in ranges:
        if first <= id < first + size:
            return host + id - first
    raise InvalidArgument(f"owner {id} cannot be in the container's user namespace", object=str(id))
