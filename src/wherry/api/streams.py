"""What a container writes and reads: wait, logs, attach."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.detach import DetachKeys
from wherry.api.hijack import ClientEnd, relay, stream_type
from wherry.api.reply import JSON, Answer, Stream, TakenOver, dump_json, reply_json
from wherry.api.router import Route
from wherry.errors import InvalidArgument

_CONDITIONS = ("", "not-running", "next-exit", "removed")
_BATCH = 128 << 10


async def wait(call: Call) -> Answer:
    """POST /containers/{id}/wait. The head is sent at once, so that the caller knows that it waits."""
    condition = call.query.get("condition") if call.version >= (1, 30) else ""
    if condition not in _CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"', object="condition")
    waiter = call.engine.containers.wait_registered(call.name, condition or "not-running")
    if waiter.done() or call.version < (1, 30):
        with cancelled_when_gone(call.request):
            return reply_json(_wait_document(await waiter))
    try:
        stream = Stream(call.request).open(JSON)
        with cancelled_when_gone(call.request):
            result = await waiter
    finally:
        waiter.cancel()
    stream.send(dump_json(_wait_document(result)))
    return await stream.end()


def _wait_document(result: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"StatusCode": result.status}
    if result.error:
        document["Error"] = {"Message": result.error}
    return document


async def logs(call: Call) -> Answer:
    """GET /containers/{id}/logs."""
    records, write_line = _open_logs(call, call.query.flag("follow"))
    stream = Stream(call.request).open(stream_type(call, call.engine.containers.is_tty(call.name)))
    with cancelled_when_gone(call.request):
        await _copy_log(records, write_line, stream)
    return await stream.end()


def _open_logs(call: Call, follow: bool) -> tuple[AsyncIterator[Any], Callable[[Any], bytes]]:
    query = call.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tty = call.engine.containers.is_tty(call.name)
    records = call.engine.containers.logs(
        call.name,
        stdout=stdout,
        stderr=stderr,
        since=query.seconds("since"),
        until=query.seconds("until"),
        tail=_tail(query.get("tail")),
        follow=follow,
    )
    return records, line_writer(tty, query.flag("timestamps"), query.flag("details"))


def _tail(text: str) -> int | None:
    # Docker takes everything that is not a number, "all" too, as all.
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


_HEADERS = {"stdout": b"\x01\0\0\0", "stderr": b"\x02\0\0\0"}


def line_writer(tty: bool, timestamps: bool, details: bool) -> Callable[[Any], bytes]:
    """How a log record is sent: framed unless from a terminal, its time before it when asked for."""

    def plain(record: Any) -> bytes:
        line: bytes = record.line
        return _HEADERS[record.stream] + len(line).to_bytes(4, "big") + line

    def with_more(record: Any) -> bytes:
        line: bytes = record.line
        if details:
            line = details_of(record.attributes) + b" " + line
        if timestamps:
            line = timestamp(record.time_ns) + b" " + line
        return line if tty else _HEADERS[record.stream] + len(line).to_bytes(4, "big") + line

    return with_more if tty or timestamps or details else plain


def details_of(attributes: Mapping[str, str] | None) -> bytes:
    """What its driver keeps of the container, as docker writes it: k=v,k2=v2, sorted, escaped as in a URL."""
    pairs = sorted((attributes or {}).items())
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs).encode()


_second = (0, "")


def timestamp(time_ns: int) -> bytes:
    """RFC 3339 with nine digits, UTC."""
    global _second
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    if _second[0] != seconds:
        _second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return f"{_second[1]}.{nanoseconds:09d}Z".encode()


async def _copy_log(
    records: AsyncIterator[Any], write_line: Callable[[Any], bytes], stream: Stream | ClientEnd
) -> None:
    """Send lines together while they come without a pause, and at once when they stop coming."""
    lines: list[bytes] = []
    flushing: asyncio.Handle | None = None
    call_soon = asyncio.get_running_loop().call_soon
    size = 0

    def take() -> bytes:
        nonlocal flushing
        flushing = None
        data = b"".join(lines)
        lines.clear()
        return data

    async for record in records:
        line = write_line(record)
        lines.append(line)
        size += len(line)
        if flushing is None:
            # Runs as soon as the loop is free again, that is when there is no further line yet.
            flushing = call_soon(lambda: stream.send(take()))
        if size >= _BATCH:
            # What was flushed in between counts too: it may not have been taken yet.
            size = 0
            flushing.cancel()
            await stream.write(take())
    if flushing is not None:
        flushing.cancel()
    await stream.write(take())


async def attach(call: Call) -> Answer:
    """POST /containers/{id}/attach: the connection becomes the container's standard streams."""
    query, containers = call.query, call.engine.containers
    keys = DetachKeys(query.get("detachKeys"))
    detach = keys if query.flag("stdin") else None
    tty = containers.is_tty(call.name)
    content_type = stream_type(call, tty)
    streams = None
    if query.flag("stream"):
        streams = await containers.attach(
            call.name, stdin=query.flag("stdin"), stdout=query.flag("stdout"), stderr=query.flag("stderr")
        )
    past = None
    if query.flag("logs"):
        past = _open_logs(call, follow=False)

    async def replay(client: ClientEnd) -> None:
        if past is not None:
            await _copy_log(*past, client)

    if await relay(call, streams, content_type, detach=detach if tty else None, before=replay):
        containers.detached(call.name)
    return TakenOver()


ROUTES = [
    Route("POST", "/containers/{id}/wait", wait),
    Route("GET", "/containers/{id}/logs", logs),
    Route("POST", "/containers/{id}/attach", attach),
]
