"""Making a unix socket's file: of the right owner and mode before anybody can connect, nobody else's thrown away."""

import grp
import os
import pwd
import socket
import stat
from pathlib import Path

from wherry.errors import Conflict, FailedPrecondition, InvalidArgument

_BACKLOG = 1024
_PATH_MAX = 107
"""Of a unix socket's address (unix(7), sun_path less its final zero)."""


def bind_unix(path: Path, *, user: int = 0, group: int = -1, mode: int = 0o660) -> socket.socket:
    """A listening socket at `path`. Conflict: somebody listens there, or it is something else than a socket."""
    if not path.is_absolute() or len(os.fsencode(path)) > _PATH_MAX:
        raise InvalidArgument(f"invalid unix socket path {path}", hint=f"absolute, at most {_PATH_MAX} bytes")
    try:
        _check_free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(f"cannot listen on {path}: {error.strerror}", object=str(path)) from error
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        os.fchmod(bound.fileno(), 0o600)
        bound.bind(os.fspath(path))
        _set_owner(path, user, group, mode)
        # Until now nobody could connect.
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise FailedPrecondition(f"cannot listen on {path}: {error.strerror}", object=str(path)) from error
    return bound


def _set_owner(path: Path, user: int, group: int, mode: int) -> None:
    """By descriptor: in a directory of somebody else's, what bears the name may be another thing by now."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise FileExistsError(17, "it was exchanged for something else")
        name = f"/proc/self/fd/{descriptor}"
        os.chown(name, user, group)
        os.chmod(name, mode)
    finally:
        os.close(descriptor)


def _check_free(path: Path) -> None:
    """A socket nobody listens on is what a killed daemon left; anything else is somebody's."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(
                f"{path} exists and is not a socket", object=str(path), hint="remove it or choose another path"
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            # It is there but busy.
            pass
    raise Conflict(f"another daemon listens on {path}", object=str(path), hint="stop it or choose another path")


def find_group(name: str) -> int:
    """A group's number, by name or number."""
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidArgument(f"group {name} not found", object=name, hint=f"groupadd {name}") from None


def find_user(name: str) -> int:
    """A user's number, by name or number."""
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise InvalidArgument(f"user {name} not found", object=name, hint=f"useradd {name}") from None
