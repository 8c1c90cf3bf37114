"""Reading back what a log-driver plugin keeps: LogDriver.ReadLogs (plugins_logging.md)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from wherry.errors import Internal, Unimplemented
from wherry.logs.formats import LogRecord
from wherry.logs.remote.entry import MAX, decode
from wherry.logs.target import LogTarget
from wherry.plugins import Body, activate

_PATIENCE = 2.0
_SUBSYSTEM = "LogDriver"


async def read_plugin(
    target: LogTarget, *, since: int, until: int, tail: int | None, follow: bool
) -> AsyncIterator[LogRecord]:
    """As wherry.logs.reader.read_log, of a plugin's own records."""
    asked = {
        "Config": {
            "Since": _time(since),
            "Until": _time(until),
            "Tail": -1 if tail is None else tail,
            "Follow": follow,
        },
        "Info": target.info,
    }
    # dockerd's own name for the first is Config; the documentation says ReadConfig.
    asked["ReadConfig"] = asked["Config"]
    body = await asyncio.to_thread(_open, target.driver, asked)
    try:
        if follow:
            body.settimeout(None)
        while True:
            record = await asyncio.to_thread(_next, body)
            if record is None:
                return
            if until and record.time_ns > until:
                return
            if record.time_ns >= since:
                yield record
    finally:
        body.close()


def _open(driver: str, asked: object) -> Body:
    plugin = activate(driver, _SUBSYSTEM, patience=_PATIENCE)
    answer = plugin.call("LogDriver.Capabilities", {}, timeout=_PATIENCE)
    found = answer.get("Cap", answer) if isinstance(answer, dict) else {}
    if not isinstance(found, dict) or found.get("ReadLogs") is not True:
        raise Unimplemented("configured logging driver does not support reading", object=driver)
    return plugin.stream("LogDriver.ReadLogs", asked)


def _next(body: Body) -> LogRecord | None:
    size = _exactly(body, 4)
    if size is None:
        return None
    length = int.from_bytes(size, "big")
    if length > MAX:
        raise Internal(f"a log entry of {length} bytes: the plugin sends something else than entries")
    data = _exactly(body, length)
    if data is None:
        return None
    try:
        message = decode(data)
    except ValueError as error:
        raise Internal(f"the plugin sent a malformed log entry: {error}") from None
    partial = message.partial is not None and not message.partial.last
    ends = partial or message.line.endswith(b"\n")
    return LogRecord(message.stream or "stdout", message.time_ns, message.line if ends else message.line + b"\n")


def _exactly(body: Body, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = body.read(size - len(data))
        if not piece:
            return None
        data += piece
    return data


def _time(ns: int) -> str:
    if not ns:
        return "0001-01-01T00:00:00Z"
    at = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09d}Z"
