"""Waiting until a file is written to, replaced or made, as an asyncio event."""

import asyncio
from pathlib import Path

from wherry.logs.inotify import DirectoryWatch


class Watch:
    """Tells when anything in the directory of `path` changes. Use and close it on one event loop."""

    def __init__(self, path: Path) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._watch = DirectoryWatch(path.parent)
        self._loop.add_reader(self._watch.fd, self._on_readable)

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
        if self._watch.fd >= 0:
            self._loop.remove_reader(self._watch.fd)
            self._watch.close()

    def _on_readable(self) -> None:
        self._watch.clear()
        self._event.set()
