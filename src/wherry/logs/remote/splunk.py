"""splunk: batches of events to an HTTP Event Collector (docs.splunk.com, "Format events for HTTP Event Collector")."""

import gzip
import http.client
import json
import socket
import ssl
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from wherry.errors import Unavailable
from wherry.logs.backlog import Message
from wherry.logs.remote.connection import tls
from wherry.logs.remote.driver import TIMEOUT, Context, Driver
from wherry.logs.rotation import parse_bool

_PATH = "/services/collector/event/1.0"
_BATCH = 1000
_MAX_ANSWER = 64 * 1024


class Splunk:
    """One container's events."""

    retry_seconds = 5.0
    max_retries: int | None = None

    def __init__(self, context: Context) -> None:
        options = context.options
        parts = urlsplit(options["splunk-url"])
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._security: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._security = tls(
                options.get("splunk-capath", ""), insecure=_flag(options, "splunk-insecureskipverify", False)
            )
        self._server_name = options.get("splunk-caname", "")
        self._verify = _flag(options, "splunk-verify-connection", True)
        self._gzip = _flag(options, "splunk-gzip", False)
        self._level = int(options.get("splunk-gzip-level", "-1"))
        self._format = options.get("splunk-format", "inline")
        self._headers = {"Authorization": f"Splunk {options['splunk-token']}"}
        if _flag(options, "splunk-index-acknowledgment", False):
            self._headers["X-Splunk-Request-Channel"] = str(uuid.uuid4())
        self._fixed: dict[str, Any] = {"host": socket.gethostname()}
        for name in ("source", "sourcetype", "index"):
            if options.get(f"splunk-{name}"):
                self._fixed[name] = options[f"splunk-{name}"]
        self._tag = "" if options.get("tag") == "" else context.tag
        self._attributes = context.extra
        self._connection: http.client.HTTPConnection | None = None

    def connect(self) -> None:
        if self._verify:
            self._ask("OPTIONS", None)

    def send(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), _BATCH):
            events = [self._event(message) for message in messages[start : start + _BATCH]]
            body = "".join(event for event in events if event).encode()
            if body:
                self._ask("POST", body)

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def finish(self) -> None:
        self.disconnect()

    def _event(self, message: Message) -> str:
        text = message.line.decode("utf-8", "replace")
        event: Any
        if self._format == "raw":
            if not text.strip():
                return ""
            prefix = [self._tag, *(f"{name}={value}" for name, value in self._attributes.items())]
            event = " ".join([*filter(None, prefix), text])
        else:
            event = {"line": self._line(text), "source": message.stream}
            if self._tag:
                event["tag"] = self._tag
            if self._attributes:
                event["attrs"] = self._attributes
        seconds = f"{message.time_ns // 1000 / 1e6:.6f}"
        return json.dumps({"event": event, "time": seconds, **self._fixed}, separators=(",", ":"))

    def _line(self, text: str) -> Any:
        if self._format == "json":
            try:
                return json.loads(text)
            except ValueError:
                return text
        return text

    def _ask(self, method: str, body: bytes | None) -> None:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
            if self._gzip:
                body = gzip.compress(body, self._level if self._level >= 0 else 6)
                headers["Content-Encoding"] = "gzip"
        try:
            connection = self._connected()
            connection.request(method, _PATH, body, headers)
            response = connection.getresponse()
            data = response.read(_MAX_ANSWER)
        except http.client.HTTPException as error:
            raise Unavailable(f"splunk: {error!r}") from None
        if response.status != 200:
            text = data[:1024].decode("utf-8", "replace")
            raise Unavailable(f"splunk: failed to send a request - {response.status} {response.reason} - {text}")

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = self._address
            plain = socket.create_connection((host, port), TIMEOUT)
            made = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
            name = self._server_name or host
            made.sock = self._security.wrap_socket(plain, server_hostname=name) if self._security else plain
            self._connection = made
        return self._connection


def _flag(options: Any, name: str, default: bool) -> bool:
    return parse_bool(name, options[name]) if options.get(name) else default


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return Splunk(context)
