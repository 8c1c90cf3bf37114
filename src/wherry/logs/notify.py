"""Waiting until a file is written to, replaced or made: inotify(7) on its directory, as an asyncio event."""

import asyncio
import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)

_IN_MODIFY, _IN_CLOSE_WRITE, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x8, 0x80, 0x100


class Watch:
    """Tells when anything in the directory of `path` changes. Use and close it on one event loop."""

    def __init__(self, path: Path) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fd: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), f"inotify_init1: {os.strerror(ctypes.get_errno())}")
        mask = _IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE
        if _libc.inotify_add_watch(self._fd, os.fsencode(path.parent), mask) < 0:
            error = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(error, f"inotify_add_watch: {os.strerror(error)}", str(path.parent))
        self._loop.add_reader(self._fd, self._on_readable)

    async def changed(self, timeout: float) -> None:
        """Return when something changed since the last return, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()

    def close(self) -> None:
        """Stop watching; closing twice is harmless."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        try:
            os.read(self._fd, 4096)
        except BlockingIOError:
            return
        self._event.set()
