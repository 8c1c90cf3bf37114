"""Calls to a plugin: one connection for each, blocking or on an event loop, both driving the same generators.

A connection is not kept: plugins are called rarely, over unix sockets, and one that restarts must not be met by a stale
one.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Generator
from typing import Any, TypeVar

from wherry.errors import FailedPrecondition, Unavailable
from wherry.plugins._address import Address, Places, discover
from wherry.plugins._message import MAX_LINE, Head, check, next_piece, read_head, request

MAX_ANSWER = 4 << 20
TIMEOUT = 30.0
# How long a plugin that is announced but does not listen yet is waited for (plugin_api.md: "up to 30 seconds").
PATIENCE = 30.0
_FIRST_PAUSE = 0.1
T = TypeVar("T")
_TOO_LARGE = "its reply is larger than {} bytes"


class Plugin:
    """A plugin that has shaken hands. `implements`: the subsystems it serves. Safe to use from any thread."""

    def __init__(self, address: Address, implements: tuple[str, ...] = ()) -> None:
        self.address = address
        self.name = address.name
        self.implements = implements

    def call(
        self,
        method: str,
        body: Any = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = 0.0,
        limit: int = MAX_ANSWER,
    ) -> Any:
        """POST /`method`; its JSON answer. Blocks, at most `timeout` seconds once connected.

        `patience`: how long to go on trying to connect. Unavailable when it cannot be reached or breaks off, Internal
        with its own words when it refuses (a status other than 200, or an `Err` in the answer).
        """
        connection = _connect_patiently(self.address, timeout, patience)
        try:
            deadline = time.monotonic() + timeout
            connection.sendall(self._request(method, body))
            status, data = _drive(connection, _whole(self.name, limit), deadline, self.name)
        except OSError as error:
            raise self._broken(method, error) from None
        finally:
            connection.close()
        return check(self.name, method, status, data)

    async def call_async(
        self,
        method: str,
        body: Any = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = 0.0,
        limit: int = MAX_ANSWER,
    ) -> Any:
        """As `call`, on the running event loop."""
        reader, writer = await _open_patiently(self.address, timeout, patience)
        try:
            async with asyncio.timeout(timeout):
                writer.write(self._request(method, body))
                status, data = await _drive_async(reader, _whole(self.name, limit))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise self._broken(method, error) from None
        finally:
            writer.close()
        return check(self.name, method, status, data)

    def stream(self, method: str, body: Any = None, *, timeout: float = TIMEOUT) -> "Body":
        """POST /`method`; its answer's body, read as it comes and without bound. `timeout`: between two pieces."""
        connection = _connect_patiently(self.address, timeout, 0)
        try:
            connection.sendall(self._request(method, body))
            opened = Body(connection, self.name, timeout)
            if opened.status != 200:
                check(self.name, method, opened.status, opened.read(4096))
            return opened
        except OSError as error:
            connection.close()
            raise self._broken(method, error) from None
        except BaseException:
            connection.close()
            raise

    def _request(self, method: str, body: Any) -> bytes:
        return request(self.address.host or "plugin", f"{self.address.prefix}/{method.lstrip('/')}", body)

    def _broken(self, method: str, error: Exception) -> Unavailable:
        what = "no answer in time" if isinstance(error, TimeoutError) else str(error) or "the connection broke off"
        return Unavailable(f"plugin {self.name}: {method}: {what}", object=self.name)


class Body:
    """A body that is read as it comes; a context manager."""

    def __init__(self, connection: socket.socket, name: str, timeout: float | None) -> None:
        self._connection = connection
        self._name = name
        self._timeout = timeout
        self._buffer = bytearray()
        self._rest = b""
        self._head: Head = self._run(read_head(name))
        self.status = self._head.status
        self._state = [self._head.length or 0]

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Unavailable when the plugin breaks off or is silent for too long."""
        if not self._rest:
            self._rest = self._run(next_piece(self._name, self._head, self._state))
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def settimeout(self, seconds: float | None) -> None:
        """How long to wait for the next piece; None: for ever (following)."""
        self._timeout = seconds

    def close(self) -> None:
        """Break it off, from any thread."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._connection.close()

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, reading: Generator[int, bytes, T]) -> T:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            return _drive(self._connection, reading, deadline, self._name, self._buffer)
        except OSError as error:
            raise Unavailable(f"plugin {self._name}: {error or 'no answer in time'}", object=self._name) from None


def activate(
    plugin: Address | str, subsystem: str, *, patience: float = PATIENCE, places: Places | None = None
) -> Plugin:
    """Shake hands with a plugin, waiting while it starts. NotFound when there is none of this name, FailedPrecondition
    when it does not implement `subsystem` ("VolumeDriver", "NetworkDriver", "IpamDriver", "LogDriver", "authz")."""
    address = discover(plugin, places) if isinstance(plugin, str) else plugin
    return _introduced(address, subsystem, Plugin(address).call("Plugin.Activate", patience=patience))


async def activate_async(
    plugin: Address | str, subsystem: str, *, patience: float = PATIENCE, places: Places | None = None
) -> Plugin:
    """As `activate`, on the running event loop."""
    address = discover(plugin, places) if isinstance(plugin, str) else plugin
    return _introduced(address, subsystem, await Plugin(address).call_async("Plugin.Activate", patience=patience))


def _introduced(address: Address, subsystem: str, answer: Any) -> Plugin:
    named = answer.get("Implements") if isinstance(answer, dict) else None
    implements = tuple(str(name) for name in named) if isinstance(named, list) else ()
    if subsystem not in implements:
        raise FailedPrecondition(
            f'plugin "{address.name}" does not implement {subsystem!r}',
            object=address.name,
            hint=f"it implements {', '.join(implements) or 'nothing'}",
        )
    return Plugin(address, implements)


def _whole(name: str, limit: int) -> Generator[int, bytes, tuple[int, bytes]]:
    head = yield from read_head(name)
    if head.length is not None and head.length > limit:
        raise Unavailable(f"plugin {name}: {_TOO_LARGE.format(limit)}", object=name)
    state, data = [head.length or 0], bytearray()
    while piece := (yield from next_piece(name, head, state)):
        data += piece
        if len(data) > limit:
            raise Unavailable(f"plugin {name}: {_TOO_LARGE.format(limit)}", object=name)
    return head.status, bytes(data)


def _context(address: Address) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=address.ca or None)
    if address.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if address.cert:
        context.load_cert_chain(address.cert, address.key or None)
    return context


# Blocking


def _connect_patiently(address: Address, timeout: float, patience: float) -> socket.socket:
    deadline, pause = time.monotonic() + patience, _FIRST_PAUSE
    while True:
        try:
            return _connect(address, timeout)
        except OSError as error:
            if isinstance(error, ssl.SSLError) or time.monotonic() + pause > deadline:
                raise _unreachable(address, error) from None
        time.sleep(pause)
        pause *= 2


def _connect(address: Address, timeout: float) -> socket.socket:
    if not address.path:
        plain = socket.create_connection((address.host, address.port), timeout)
        return _context(address).wrap_socket(plain, server_hostname=address.host) if address.tls else plain
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout)
    try:
        connection.connect(address.path)
    except BaseException:
        connection.close()
        raise
    return connection


def _unreachable(address: Address, error: OSError) -> Unavailable:
    where = address.path or f"{address.host}:{address.port}"
    return Unavailable(
        f"plugin {address.name} does not answer at {where}: {error.strerror or error}",
        object=address.name,
        hint="start the plugin, or remove the file that announces it",
    )


def _drive(
    connection: socket.socket,
    reading: Generator[int, bytes, T],
    deadline: float | None,
    name: str,
    buffer: bytearray | None = None,
) -> T:
    held = bytearray() if buffer is None else buffer

    def fill() -> bool:
        if deadline is None:
            connection.settimeout(None)
        else:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            connection.settimeout(left)
        data = connection.recv(64 * 1024)
        held.extend(data)
        return bool(data)

    try:
        wanted = next(reading)
        while True:
            if wanted < 0:
                if not held:
                    fill()
                size = min(len(held), -wanted)
            elif wanted:
                while len(held) < wanted:
                    if not fill():
                        raise ConnectionError("the connection broke off")
                size = wanted
            else:
                while (end := held.find(b"\n")) < 0:
                    if len(held) > MAX_LINE or not fill():
                        raise ConnectionError("the connection broke off")
                size = end + 1
            piece = bytes(held[:size])
            del held[:size]
            wanted = reading.send(piece)
    except StopIteration as end_of_reading:
        result: T = end_of_reading.value
        return result


# On an event loop


async def _open_patiently(
    address: Address, timeout: float, patience: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline, pause = time.monotonic() + patience, _FIRST_PAUSE
    while True:
        try:
            async with asyncio.timeout(timeout):
                if address.path:
                    return await asyncio.open_unix_connection(address.path, limit=MAX_LINE)
                context = await asyncio.to_thread(_context, address) if address.tls else None
                return await asyncio.open_connection(address.host, address.port, ssl=context, limit=MAX_LINE)
        except OSError as error:
            if isinstance(error, ssl.SSLError) or time.monotonic() + pause > deadline:
                raise _unreachable(address, error) from None
        await asyncio.sleep(pause)
        pause *= 2


async def _drive_async(reader: asyncio.StreamReader, reading: Generator[int, bytes, T]) -> T:
    try:
        wanted = next(reading)
        while True:
            if wanted < 0:
                piece = await reader.read(-wanted)
            elif wanted:
                piece = await reader.readexactly(wanted)
            else:
                piece = await reader.readuntil(b"\n")
            wanted = reading.send(piece)
    except StopIteration as end_of_reading:
        result: T = end_of_reading.value
        return result
