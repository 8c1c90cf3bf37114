"""One container's log on its way: read from its file, given to its driver, remembered as delivered. One thread.

How far it got is written to the cursor file after each delivery, so whoever goes on after a crash repeats at most the
last batch. In blocking mode nothing is skipped: what cannot be delivered waits in the log's files, and when these are
full the container waits too. In non-blocking mode what is more than max-buffer-size behind is skipped, oldest first.
"""

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wherry.errors import WherryError
from wherry.logs.backlog import Backlog, Message
from wherry.logs.inotify import DirectoryWatch
from wherry.logs.remote.driver import Context, Driver, make
from wherry.logs.rotation import parse_size

_DEFAULT_BUFFER = 1 << 20
_LONGEST_PAUSE = 30.0
# After its container's end, what cannot be delivered is tried again for so long.
_FAREWELL_SECONDS = 600.0
_FALLBACK_SECONDS = 60.0


class Courier:
    """Delivers from `path` what is behind the cursor. `on_room(id)`: the writer said that it waits, and may go on;
    `on_end(courier)`: everything is delivered, or given up, after `finish`. Both are called in the thread."""

    def __init__(
        self,
        id: str,
        target: dict[str, Any],
        scratch: Path,
        on_room: Callable[[str], None],
        on_end: Callable[["Courier"], None],
    ) -> None:
        self.id = id
        self._path = Path(target["path"])
        options = target["options"]
        self._driver: Driver = make(Context(target["driver"], target["info"], options, scratch))
        self._skips = options.get("mode") == "non-blocking"
        self._most = parse_size("max-buffer-size", options.get("max-buffer-size") or str(_DEFAULT_BUFFER))
        self._on_room, self._on_end = on_room, on_end
        self._cursor = os.open(target["cursor"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        known = os.pread(self._cursor, 8, 0)
        self._backlog = Backlog(self._path, int.from_bytes(known, "little"))
        if not known:
            # Begun anew: what is there was another run's, delivered then or given up.
            self._backlog.position = self._backlog.end()
            os.pwrite(self._cursor, self._backlog.position.to_bytes(8, "little"), 0)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._finishing = 0.0
        self._stopped = False
        self._failures = 0
        self._lost = 0
        self.thread = threading.Thread(target=self._run, name=f"courier {id[:12]}", daemon=True)

    def connect(self) -> None:
        """In any thread, before `start`: reach the other side; raises why not."""
        self._driver.connect()

    def start(self) -> None:
        """Begin to deliver."""
        self.thread.start()

    def finish(self) -> None:
        """The log has ended: deliver what is left, and end. Not for ever when the other side is away."""
        self._finishing = self._finishing or time.monotonic()
        os.eventfd_write(self._wake, 1)

    def resume(self) -> None:
        """There is more to come after all: the container was started again."""
        self._finishing = 0.0

    def stop(self) -> None:
        """End without delivering the rest, which stays in the log."""
        self._stopped = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Release everything; after the thread's end, or instead of its start."""
        self._backlog.close()
        os.close(self._cursor)
        os.close(self._wake)

    def _run(self) -> None:
        watch = DirectoryWatch(self._path.parent)
        try:
            while not self._stopped:
                messages = self._backlog.read()
                self._count_lost()
                if messages and (self._too_far_behind() or not self._deliver(messages)):
                    self._lost += sum(len(message.line) for message in messages)
                if messages:
                    self._advance()
                elif self._finishing:
                    break
                else:
                    self._advance()  # pages' ends and starts of files hold no messages
                    self._wait(watch.fd, _FALLBACK_SECONDS)
                    watch.clear()
            if not self._stopped:
                self._try("finishing", self._driver.finish)
        except Exception as error:  # noqa: BLE001 - a thread's root
            self._say(f"stopped: {error!r}")
        finally:
            watch.close()
            self._on_end(self)

    def _deliver(self, messages: list[Message]) -> bool:
        """Until it has succeeded, or there is no more sense in trying."""
        pause, tries = self._driver.retry_seconds, 0
        while not self._stopped:
            if self._try("delivery", lambda: self._driver.send(messages)):
                return True
            tries += 1
            self._try("disconnecting", self._driver.disconnect)
            most = self._driver.max_retries
            late = self._finishing and time.monotonic() - self._finishing > _FAREWELL_SECONDS
            if late or self._too_far_behind() or (most is not None and tries > most):
                return False
            self._wait(-1, pause)
            pause = min(pause * 2, max(_LONGEST_PAUSE, self._driver.retry_seconds))
        return False

    def _too_far_behind(self) -> bool:
        return self._skips and self._backlog.end() - self._backlog.position > self._most

    def _try(self, what: str, step: Callable[[], None]) -> bool:
        try:
            step()
        except (OSError, WherryError) as error:
            self._failures += 1
            if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th...
                self._say(f"{what} failed ({self._failures} times): {error}")
            return False
        if what == "delivery":
            self._failures = 0
        return True

    def _count_lost(self) -> None:
        lost, self._backlog.lost = self._backlog.lost, 0
        self._lost += lost
        if self._lost > self._most or (self._lost and not lost):
            self._say(f"{self._lost} bytes were dropped before they could be delivered")
            self._lost = 0

    def _advance(self) -> None:
        if self._stopped:
            return
        os.pwrite(self._cursor, self._backlog.position.to_bytes(8, "little"), 0)
        if os.pread(self._cursor, 1, 8) == b"\1":
            os.pwrite(self._cursor, b"\0", 8)
            self._on_room(self.id)

    def _wait(self, fd: int, seconds: float) -> None:
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        if fd >= 0:
            poller.register(fd, select.POLLIN)
        poller.poll(seconds * 1000)
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {self.id[:12]}: {text}", file=sys.stderr, flush=True)
