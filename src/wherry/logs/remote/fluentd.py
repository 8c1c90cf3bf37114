"""fluentd: the forward protocol, one message for many events (github.com/fluent, "Forward Protocol v1")."""

import base64
import os
import ssl
from collections.abc import Sequence

from wherry.errors import Unavailable
from wherry.logs.backlog import Message
from wherry.logs.options import address, duration
from wherry.logs.remote.connection import Connection, tls
from wherry.logs.remote.driver import TIMEOUT, Context, Driver
from wherry.logs.remote.msgpack import EventTime, pack
from wherry.logs.rotation import parse_bool

_DEFAULT = "tcp://127.0.0.1:24224"
_MAX_ANSWER = 4096


class Fluentd:
    """One container's events."""

    def __init__(self, context: Context) -> None:
        options, info = context.options, context.info
        text = options.get("fluentd-address") or _DEFAULT
        scheme, host, port = address(
            "fluentd-address", text if "://" in text else f"tcp://{text}", ("tcp", "tls", "unix"), 24224
        )
        security: ssl.SSLContext | None = tls() if scheme == "tls" else None
        timeout = duration("fluentd-write-timeout", options.get("fluentd-write-timeout", "0")) or TIMEOUT
        self._connection = Connection(scheme, host, port, security, timeout)
        self.retry_seconds = duration("fluentd-retry-wait", options.get("fluentd-retry-wait", "1s"))
        retries = options.get("fluentd-max-retries")
        self.max_retries = int(retries) if retries else None
        self._precise = _flag(options.get("fluentd-sub-second-precision"))
        self._acknowledged = _flag(options.get("fluentd-request-ack"))
        self._async = _flag(options.get("fluentd-async"))
        interval = options.get("fluentd-async-reconnect-interval")
        if interval:
            self.retry_seconds = duration("fluentd-async-reconnect-interval", interval)
        self._tag = context.tag
        self._record = {
            "container_id": str(info.get("ContainerID", "")),
            "container_name": str(info.get("ContainerName", "")),
            **context.extra,
        }

    def connect(self) -> None:
        if not self._async:
            self._connection.open()

    def send(self, messages: Sequence[Message]) -> None:
        chunk = base64.b64encode(os.urandom(16)).decode()
        option: dict[str, str | int] = {"size": len(messages)}
        if self._acknowledged:
            option["chunk"] = chunk
        data = pack([self._tag, [self._event(message) for message in messages], option])
        self._connection.send(data)
        if self._acknowledged:
            self._await(chunk)

    def disconnect(self) -> None:
        self._connection.close()

    def finish(self) -> None:
        self._connection.close()

    def _event(self, message: Message) -> list[EventTime | int | dict[str, str | bytes]]:
        moment = EventTime(message.time_ns) if self._precise else message.time_ns // 1_000_000_000
        record: dict[str, str | bytes] = {**self._record, "source": message.stream, "log": message.line}
        if message.partial is not None:
            record["partial_message"] = "true"
            record["partial_id"] = message.partial.id
            record["partial_ordinal"] = str(message.partial.ordinal)
            record["partial_last"] = "true" if message.partial.last else "false"
        return [moment, record]

    def _await(self, chunk: str) -> None:
        expected, answer = pack({"ack": chunk}), b""
        while len(answer) < len(expected):
            data = self._connection.open().recv(_MAX_ANSWER)
            if not data:
                raise ConnectionError("fluentd closed the connection before it acknowledged")
            answer += data
        if answer != expected:
            raise Unavailable("fluentd acknowledged something else than was sent")


def _flag(text: str | None) -> bool:
    return text is not None and parse_bool("fluentd", text)


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return Fluentd(context)
