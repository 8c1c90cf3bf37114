"""The side that asks, on asyncio: any number of calls at a time over one connection."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wherry import errors
from wherry.ipc import seqpacket
from wherry.spec import fastjson

Answer = tuple[Any, list[int]]


class Connection:
    """A connection to a helper. It never reconnects: once lost, every call raises Unavailable."""

    def __init__(self, name: str, path: Path, on_event: Callable[..., None], on_lost: Callable[[], None]) -> None:
        """Connect to `path`, or raise Unavailable. `on_event(name, *values)`; `on_lost()` once, but not for `close`."""
        try:
            self._socket = seqpacket.connect(str(path))
        except OSError as error:
            raise errors.Unavailable(f"the {name} does not answer: {error}", object=str(path)) from error
        self._socket.setblocking(False)
        self._name = name
        self._on_event = on_event
        self._on_lost = on_lost
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._outbox: list[tuple[bytes, list[int]]] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._read)

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """A call without descriptors: its value."""
        value, fds = await self.call(operation, arguments, ())
        seqpacket.close(fds)
        return value

    async def call(self, operation: str, arguments: dict[str, Any], fds: Sequence[int]) -> Answer:
        """The value and the descriptors answered, which are the caller's to close, as its own `fds` remain.

        Raises the error answered, and Unavailable when the connection is or gets lost. A cancelled call may have been
        carried out.
        """
        if self._socket.fileno() < 0:
            raise errors.Unavailable(f"the connection to the {self._name} is closed")
        self._last = number = self._last + 1
        future = self._waiting[number] = self._loop.create_future()
        try:
            self._send(fastjson.dumps({"seq": number, "op": operation, "args": arguments}).encode(), fds)
            answer: Answer = await future
            return answer
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                seqpacket.close(future.result()[1])  # answered, but nobody is there to take them
            raise
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """End the connection; calls under way fail with Unavailable."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, fds in self._outbox:
            seqpacket.close(fds)
        self._outbox.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(errors.Unavailable(f"the connection to the {self._name} was lost"))

    def _send(self, message: bytes, fds: Sequence[int]) -> None:
        if not self._outbox:
            try:
                seqpacket.send(self._socket, message, list(fds))
                return
            except BlockingIOError:
                pass
            except ConnectionError:
                return  # what it sent before it went is still to be read; the end comes after that
            except OSError as error:
                raise errors.Internal(f"cannot ask the {self._name}: {error}") from error
        # Queued messages keep copies: the caller may close its own as soon as its call returns or is cancelled.
        self._outbox.append((message, [os.dup(fd) for fd in fds]))
        self._loop.add_writer(self._socket.fileno(), self._flush)

    def _flush(self) -> None:
        while self._outbox:
            message, fds = self._outbox[0]
            try:
                seqpacket.send(self._socket, message, fds)
            except BlockingIOError:
                return
            except ConnectionError:
                break
            except OSError:
                self._lose()  # whose call it was is not known here
                return
            self._outbox.pop(0)
            seqpacket.close(fds)
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        # One message a turn of the loop: a burst of events must not hold up the rest of the daemon.
        try:
            received = seqpacket.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._lose()
            return
        message, fds = fastjson.loads(received[0]), received[1]
        if "event" in message:
            seqpacket.close(fds)
            self._on_event(*message["event"])
            return
        future = self._waiting.get(message["seq"])
        if future is None or future.done():
            seqpacket.close(fds)
        elif "error" in message:
            kind, text, hint = message["error"]
            future.set_exception(getattr(errors, kind, errors.Internal)(text, hint=hint))
        else:
            future.set_result((message["ok"], fds))

    def _lose(self) -> None:
        if self._socket.fileno() >= 0:
            self.close()
            self._on_lost()
