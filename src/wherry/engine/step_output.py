"""What a step's command writes, and its end, waited for on the loop."""

import asyncio
import os

from wherry.build.progress import BuildOutput

_CHUNK = 1 << 16


class Reader:
    """Reads one pipe on the loop until its end."""

    def __init__(self, fd: int, stream: int, output: BuildOutput) -> None:
        self._fd, self._stream, self._output = fd, stream, output
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._output.write(data, self._stream)
        else:
            self._loop.remove_reader(self._fd)
            if not self.done.done():
                self.done.set_result(None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def ended(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, ended)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)
