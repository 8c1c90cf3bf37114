"""The daemon's end of an exec's streams: pipes or a terminal's master, read and written by the event loop."""

import asyncio
import os
from typing import Protocol

from wherry.logs.frame import frame

_CHUNK = 1 << 16
_HIGH = 1 << 20
# A process left in the background may keep the streams open after the exec's own has ended: docker too waits 2 s.
_LINGER = 2.0


class ExecStream(Protocol):
    """The streams of a started exec, straight between the daemon and the process."""

    tty: bool

    async def read(self) -> bytes:
        """The next frames (raw bytes with a tty); b"" at the end, when the exit code is known."""
        ...

    async def write(self, data: bytes) -> None:
        """Standard input; what the process no longer reads is dropped."""
        ...

    async def close_write(self) -> None:
        """End of standard input."""
        ...

    async def wait(self) -> int:
        """The exit code."""
        ...

    def close(self) -> None:
        """Let go; the process runs on."""
        ...


class PipeStream:
    """An ExecStream on descriptors it owns: [stdin, stdout, stderr], each None when not attached."""

    def __init__(self, descriptors: list[int | None], tty: bool, ended: "asyncio.Future[int]") -> None:
        self.tty = tty
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._stdin = -1 if descriptors[0] is None else descriptors[0]
        self._open: dict[int, int] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._discard = False
        self._wake: asyncio.Future[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        if self._stdin >= 0:
            os.set_blocking(self._stdin, False)
        for kind in (1, 2):
            fd = descriptors[kind]
            if fd is not None:
                os.set_blocking(fd, False)
                self._open[fd] = kind
                self._loop.add_reader(fd, self._on_readable, fd)
        ended.add_done_callback(self._on_ended)

    async def read(self) -> bytes:
        while not self._chunks:
            if not self._open and self._ended.done():
                return b""
            self._wake = self._loop.create_future()
            await self._wake
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            for fd in self._open:
                self._loop.add_reader(fd, self._on_readable, fd)
        return data

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._stdin >= 0:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError:
                self._close_stdin()

    async def close_write(self) -> None:
        # A terminal's input ends with its own end-of-file character, never by closing.
        if not self.tty:
            self._close_stdin()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def close(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._close_stdin()
        for fd in list(self._open):
            self._close_output(fd)
        self._notify()

    def discard(self) -> None:
        """Read and forget until the end."""
        self._discard = True

    def _on_readable(self, fd: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            # EIO: the terminal's other side has been closed.
            data = b""
        if not data:
            self._close_output(fd)
        elif not self._discard:
            self._chunks.append(data if self.tty else frame(self._open[fd], data))
            self._size += len(data)
            if self._size > _HIGH and not self._paused:
                self._paused = True
                for other in self._open:
                    self._loop.remove_reader(other)
        self._notify()

    def _close_output(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._open[fd]
        os.close(fd)
        if not self._open and self._discard:
            self.close()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            fd, self._stdin = self._stdin, -1
            self._loop.remove_writer(fd)
            os.close(fd)

    def _on_ended(self, _: "asyncio.Future[int]") -> None:
        self._close_stdin()
        if self._open:
            self._linger = self._loop.call_later(_LINGER, self._give_up)
        self._notify()

    def _give_up(self) -> None:
        for fd in list(self._open):
            self._close_output(fd)
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _writable(self) -> None:
        ready = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        fd = self._stdin
        self._loop.add_writer(fd, wake)
        self._ended.add_done_callback(lambda _: wake())
        try:
            await ready
        finally:
            if self._stdin == fd:
                self._loop.remove_writer(fd)


class FailedStream:
    """The ExecStream of a process that could not be started: its whole output is why."""

    def __init__(self, tty: bool, message: bytes, code: int) -> None:
        self.tty = tty
        self._left = message if tty else frame(1, message)
        self._code = code

    async def read(self) -> bytes:
        data, self._left = self._left, b""
        return data

    async def write(self, data: bytes) -> None:
        pass

    async def close_write(self) -> None:
        pass

    async def wait(self) -> int:
        return self._code

    def close(self) -> None:
        self._left = b""
