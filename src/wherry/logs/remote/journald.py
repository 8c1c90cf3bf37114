"""journald: systemd's native protocol, a datagram of fields each (systemd.io, "Native Journal Protocol")."""

import array
import fcntl
import os
import socket
import time
from collections.abc import Sequence

from wherry.logs.backlog import Message
from wherry.logs.info import attributes
from wherry.logs.remote.driver import TIMEOUT, Context, Driver

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {"stdout": b"6", "stderr": b"3"}
_F_ADD_SEALS, _ALL_SEALS = 1033, 0xF
_INLINE = 100 * 1024


class Journald:
    """One container's messages."""

    retry_seconds = 1.0
    max_retries: int | None = None

    def __init__(self, context: Context) -> None:
        info, tag = context.info, context.tag
        self._socket: socket.socket | None = None
        self._epoch = os.urandom(32).hex()
        self._ordinal = 0
        named = {
            "CONTAINER_ID": str(info.get("ContainerID", ""))[:12],
            "CONTAINER_ID_FULL": str(info.get("ContainerID", "")),
            "CONTAINER_NAME": str(info.get("ContainerName", "")).removeprefix("/"),
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": str(info.get("ContainerImageName", "")),
            "SYSLOG_IDENTIFIER": tag,
            "CONTAINER_LOG_EPOCH": self._epoch,
            **attributes(info, context.options, uppercase=True),
        }
        self._fields = b"".join(_field(name, value.encode()) for name, value in named.items() if name)

    def connect(self) -> None:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            made.settimeout(TIMEOUT)
            try:
                made.connect(SOCKET)
            except OSError as error:
                made.close()
                reason = "journald is not enabled on this host"
                raise OSError(error.errno, f"{reason}: {SOCKET}: {(error.strerror or '').lower()}") from None
            self._socket = made

    def send(self, messages: Sequence[Message]) -> None:
        self.connect()
        assert self._socket is not None
        for message in messages:
            self._ordinal += 1
            _send(self._socket, self._datagram(message))

    def disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def finish(self) -> None:
        self.disconnect()

    def _datagram(self, message: Message) -> bytes:
        seconds, nanoseconds = divmod(message.time_ns, 1_000_000_000)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
        fields = [
            self._fields,
            _field("MESSAGE", message.line),
            _field("PRIORITY", _PRIORITIES[message.stream]),
            _field("SYSLOG_TIMESTAMP", stamp.encode()),
            _field("CONTAINER_LOG_ORDINAL", b"%d" % self._ordinal),
        ]
        if message.partial is not None:
            fields += [
                _field("CONTAINER_PARTIAL_ID", message.partial.id.encode()),
                _field("CONTAINER_PARTIAL_ORDINAL", b"%d" % message.partial.ordinal),
                _field("CONTAINER_PARTIAL_LAST", b"true" if message.partial.last else b"false"),
            ]
            if not message.partial.last:
                fields.append(_field("CONTAINER_PARTIAL_MESSAGE", b"true"))
        return b"".join(fields)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def _send(connection: socket.socket, data: bytes) -> None:
    if len(data) <= _INLINE:
        connection.send(data)
        return
    # Too large for a datagram: a sealed memory file takes its place.
    memory = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(memory, data)
        fcntl.fcntl(memory, _F_ADD_SEALS, _ALL_SEALS)
        connection.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))])
    finally:
        os.close(memory)


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return Journald(context)
