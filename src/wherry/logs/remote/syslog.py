"""syslog: RFC 3164 and 5424 over UDP, TCP, TLS and unix sockets, in the forms dockerd sends them."""

import os
import socket
import time
from collections.abc import Callable, Sequence

from wherry.logs.backlog import Message
from wherry.logs.options import FACILITIES, address
from wherry.logs.remote.connection import Connection, tls
from wherry.logs.remote.driver import Context, Driver

_LOCAL = (("unixgram", "/dev/log"), ("unixgram", "/var/run/syslog"), ("unixgram", "/var/run/log"))
_INFO, _ERROR = 6, 3
_SCHEMES = ("tcp", "udp", "tcp+tls", "unix", "unixgram")


class Syslog:
    """One container's messages, each with the time at which it was read."""

    retry_seconds = 1.0
    max_retries: int | None = None

    def __init__(self, context: Context) -> None:
        options = context.options
        self._tag = context.tag
        self._pid = os.getpid()
        self._host = socket.gethostname()
        named = options.get("syslog-facility", "daemon")
        facility = int(named) if named.isdecimal() else FACILITIES.index(named)
        self._priorities = {"stdout": facility << 3 | _INFO, "stderr": facility << 3 | _ERROR}
        scheme, host, port = self._address(options.get("syslog-address", ""))
        secure = scheme == "tcp+tls"
        security = None
        if secure:
            security = tls(
                options.get("syslog-tls-ca-cert", ""),
                options.get("syslog-tls-cert", ""),
                options.get("syslog-tls-key", ""),
                insecure="syslog-tls-skip-verify" in options,
            )
        format = options.get("syslog-format", "")
        # RFC 5425: over TLS each message is preceded by its length.
        self._counted = secure and format.startswith("rfc5424")
        self._datagrams = scheme in ("udp", "unixgram")
        self._line = _FORMATS[format]
        self._connection = Connection("tls" if secure else scheme, host, port, security)

    def connect(self) -> None:
        self._connection.open()

    def send(self, messages: Sequence[Message]) -> None:
        framed = [self._frame(message) for message in messages]
        for data in framed if self._datagrams else [b"".join(framed)]:
            self._connection.send(data)

    def disconnect(self) -> None:
        self._connection.close()

    def finish(self) -> None:
        self._connection.close()

    def _frame(self, message: Message) -> bytes:
        data = self._line(self, message).encode() + message.line + b"\n"
        return b"%d %s" % (len(data), data) if self._counted else data

    def _unix(self, message: Message) -> str:
        return f"<{self._priorities[message.stream]}>{_stamp(message.time_ns)} {self._tag}[{self._pid}]: "

    def _rfc3164(self, message: Message) -> str:
        head = f"<{self._priorities[message.stream]}>{_stamp(message.time_ns)} {self._host} "
        return f"{head}{self._tag}[{self._pid}]: "

    def _rfc5424(self, message: Message, micro: bool = False) -> str:
        seconds, nanoseconds = divmod(message.time_ns, 1_000_000_000)
        moment = time.localtime(seconds)
        zone = time.strftime("%z", moment)
        fraction = f".{nanoseconds // 1000:06d}" if micro else ""
        shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", moment) + fraction + shown
        head = f"<{self._priorities[message.stream]}>1 {stamp} {self._host} {self._tag} {self._pid} "
        return f"{head}{self._tag} - "

    def _rfc5424micro(self, message: Message) -> str:
        return self._rfc5424(message, micro=True)

    @staticmethod
    def _address(text: str) -> tuple[str, str, int]:
        if text:
            return address("syslog-address", text, _SCHEMES, 514)
        for scheme, path in _LOCAL:
            if os.path.exists(path):
                return scheme, path, 0
        return (*_LOCAL[0], 0)


_FORMATS: dict[str, Callable[[Syslog, Message], str]] = {
    "": Syslog._unix,
    "rfc3164": Syslog._rfc3164,
    "rfc5424": Syslog._rfc5424,
    "rfc5424micro": Syslog._rfc5424micro,
}
_second: tuple[int, str] = (-1, "")


def _stamp(time_ns: int) -> str:
    """As in RFC 3164: local time, "Jan _2 15:04:05", in English whatever the locale."""
    global _second
    seconds = time_ns // 1_000_000_000
    if _second[0] != seconds:
        at = time.localtime(seconds)
        month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][at.tm_mon - 1]
        _second = (seconds, f"{month} {at.tm_mday:2d} {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}")
    return _second[1]


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return Syslog(context)
