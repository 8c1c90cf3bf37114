"""User namespaces for containers (userns-remap): whose ids they live in, and what cannot be had together with it.

The mapping is only ever attached to mounts and processes: what is below the data-root keeps the owners that containers
see, so images are not kept twice, a daemon may be switched to remapping and back, and `--userns=host` needs nothing of
its own. What a container writes into a directory of the host's (-v /dir:/dir) is owned by the mapped ids, as in docker.
"""

import grp
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wherry.errors import InvalidArgument
from wherry.spec.docker import HostConfig

DEFAULT_USER = "dockremap"
_MAX = 2**32 - 1


class Range(NamedTuple):
    """Ids from `container` on are those from `host` on."""

    container: int
    host: int
    size: int


class Remap(NamedTuple):
    """Mappings of users and of groups."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    def host_uid(self, uid: int) -> int:
        """What a container's user is on the host; InvalidArgument when it has none."""
        return _to_host(uid, self.uids)

    def host_gid(self, gid: int) -> int:
        """The same of a group."""
        return _to_host(gid, self.gids)

    def documents(self) -> dict[str, list[dict[str, int]]]:
        """As in the runtime specification's `linux`."""
        return {"uidMappings": _document(self.uids), "gidMappings": _document(self.gids)}


def _document(ranges: Sequence[Range]) -> list[dict[str, int]]:
    return [{"containerID": first, "hostID": host, "size": size} for first, host, size in ranges]


def _to_host(id: int, ranges: Sequence[Range]) -> int:
    for first, host, size in ranges:
        if first <= id < first + size:
            return host + id - first
    raise InvalidArgument(f"the user or group {id} is not within the container's subordinate ids", object=str(id))


def load_remap(text: str, subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")) -> Remap | None:
    """The mapping for userns-remap=`text`, None for "". InvalidArgument says what lacks."""
    if not text:
        return None
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise InvalidArgument(f"userns-remap: {text!r} is not user, user:group, uid or uid:gid", object=text)
    if text == "default":
        user, group = DEFAULT_USER, DEFAULT_USER
    user_name, uid = _find_user(user)
    group_name, gid = _find_group(group or user_name)
    uids = _read(subuid, user_name, uid)
    gids = _read(subgid, group_name, gid)
    if user == DEFAULT_USER and not (uids and gids):
        raise InvalidArgument(
            f"userns-remap: {DEFAULT_USER} has no subordinate ids",
            object=text,
            hint=f"useradd --system {DEFAULT_USER}; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
            f"{DEFAULT_USER}",
        )
    for ranges, path, name in ((uids, subuid, user_name), (gids, subgid, group_name)):
        if not ranges:
            raise InvalidArgument(f"userns-remap: no subordinate ids of {name} in {path}", object=name)
    return Remap(uids, gids)


def _find_user(text: str) -> tuple[str, int | None]:
    try:
        found = pwd.getpwuid(int(text)) if text.isascii() and text.isdigit() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        if text == DEFAULT_USER:
            return text, None
        raise InvalidArgument(f"userns-remap: no user {text} on this machine", object=text) from None
    return found.pw_name, found.pw_uid


def _find_group(text: str) -> tuple[str, int | None]:
    try:
        found = grp.getgrgid(int(text)) if text.isascii() and text.isdigit() else grp.getgrnam(text)
    except (KeyError, OverflowError):
        if text == DEFAULT_USER:
            return text, None
        raise InvalidArgument(f"userns-remap: no group {text} on this machine", object=text) from None
    return found.gr_name, found.gr_gid


def _read(path: Path, name: str, number: int | None) -> tuple[Range, ...]:
    """The ranges of a user or group by name or number, one after the other (subuid(5)); never with the host's root."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return ()
    found: list[Range] = []
    start = 0
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) != 3 or line.lstrip().startswith("#"):
            continue
        if fields[0] != name and (number is None or fields[0] != str(number)):
            continue
        if not (fields[1].isdigit() and fields[2].isdigit()):
            raise InvalidArgument(f"{path}: not a range: {line!r}", object=str(path))
        first, size = int(fields[1]), int(fields[2])
        if first <= 0 or size <= 0 or first + size > _MAX:
            raise InvalidArgument(f"{path}: the range {first}+{size} cannot be given to containers", object=str(path))
        found.append(Range(start, first, size))
        start += size
    return tuple(found)


def remap_of(host: HostConfig, remap: Remap | None) -> Remap | None:
    """The mapping of one container: none with --userns=host."""
    return None if host.userns_mode == "host" else remap


def check_remapped(host: HostConfig, remap: Remap | None) -> None:
    """InvalidArgument, in docker's words, for what needs the host's own user namespace."""
    if remap_of(host, remap) is None:
        return
    if host.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode"
        )
    for mode, shown in ((host.network_mode, "host's network"), (host.pid_mode, "host PID")):
        if mode == "host":
            raise InvalidArgument(f"cannot share the {shown} namespace when user namespaces are enabled")


def describe(remap: Remap, namespaces: list[dict[str, str]], join: str) -> dict[str, Any]:
    """Members of `linux` for a container in a user namespace: a new one, or the one whose file is `join`."""
    namespaces.append({"type": "user", "path": join} if join else {"type": "user"})
    return dict(remap.documents())
