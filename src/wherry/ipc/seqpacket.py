"""Messages between two processes on one machine: bytes and descriptors over SOCK_SEQPACKET (unix(7)).

A message is either whole or absent, so there is no framing. A message too large for the socket's buffer travels as one
more descriptor: a memfd holding the bytes, marked by an empty datagram.
"""

from __future__ import annotations

import _socket
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = _socket.CMSG_SPACE(253 * 4)  # SCM_MAX_FD
_INLINE = 64 * 1024
_BACKLOG = 128


def listen(path: str) -> _socket.socket:
    """A listening socket at `path`, mode 0600, replacing what a dead process left there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    # Between bind and chmod nobody can connect: connect(2) fails until listen(2).
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(_BACKLOG)
    return listener


def connect(path: str) -> _socket.socket:
    """A blocking connection to the listener at `path`; OSError when there is none."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise OSError(error.errno, f"connect: {os.strerror(error.errno or 0)}", path) from None
    return connection


def accept(listener: _socket.socket) -> _socket.socket:
    """The next connection, non-blocking; a peer of another user (but root) is refused with PermissionError."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    connection = _socket.socket(fileno=fd)
    connection.setblocking(False)
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    uid = int.from_bytes(credentials[4:8], "little")
    if uid not in (0, os.geteuid()):
        connection.close()
        raise PermissionError(f"accept: a process of user {uid} tried to connect")
    return connection


def send(connection: _socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message with descriptors, which stay open here. BlockingIOError when a non-blocking peer is slow."""
    if len(message) <= _INLINE:
        _send(connection, message, descriptors)
        return
    memory = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        view = memoryview(message)
        while view:
            view = view[os.write(memory, view) :]
        _send(connection, b"", [*descriptors, memory])
    finally:
        os.close(memory)


def receive(connection: _socket.socket) -> tuple[bytes, list[int]] | None:
    """The next message and its descriptors (close-on-exec, the caller's to close); None when the peer has gone."""
    try:
        data, ancillary, flags, _ = connection.recvmsg(_INLINE, _HEADER, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The peer went without having read all of ours. Linux says so once, ahead of what it had sent before.
        data, ancillary, flags, _ = connection.recvmsg(_INLINE, _HEADER, _socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            usable = len(payload) - len(payload) % 4
            descriptors += [int.from_bytes(payload[i : i + 4], "little") for i in range(0, usable, 4)]
    if flags & (_socket.MSG_CTRUNC | _socket.MSG_TRUNC):
        close(descriptors)
        raise OSError("recvmsg: a message was cut short: too many descriptors, or out of descriptors here")
    if data:
        return data, descriptors
    if not descriptors:
        return None
    memory = descriptors.pop()
    try:
        return os.pread(memory, os.fstat(memory).st_size, 0), descriptors
    except BaseException:
        close(descriptors)
        raise
    finally:
        os.close(memory)


def close(descriptors: Sequence[int]) -> None:
    """Close every descriptor."""
    for descriptor in descriptors:
        os.close(descriptor)


def _send(connection: _socket.socket, message: bytes, descriptors: Sequence[int]) -> None:
    if not descriptors:
        connection.send(message)
        return
    packed = b"".join(descriptor.to_bytes(4, "little") for descriptor in descriptors)
    connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
