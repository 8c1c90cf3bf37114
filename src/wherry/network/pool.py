"""Sandboxes made ahead, so that a container does not wait for the kernel to make its own (1 to 2 ms).

They are ordinary sandboxes that belong to nobody yet: a daemon that is killed leaves them to the next one's start,
which removes every sandbox without an endpoint.
"""

import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

from wherry.network.sandbox import Prepared

_log = logging.getLogger(__name__)
_PAUSE = 0.005


class WarmPool:
    """Keeps `size` sandboxes ready, made by a thread of its own."""

    def __init__(self, make: Callable[[], Prepared], discard: Callable[[Prepared], None], size: int) -> None:
        self._make = make
        self._discard = discard
        self._size = size
        self._ready: deque[Prepared] = deque()
        # No more are made: the last attempt failed.
        self._resting = False
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="network-pool", daemon=True)
        if size:
            self._thread.start()

    def take(self) -> Prepared | None:
        """A sandbox for the caller to keep, oldest first, or None when none is ready; never waits."""
        with self._changed:
            # After a failure the thread rests until somebody is in need: his own attempt will tell him what is wrong.
            self._resting = False
            self._changed.notify_all()
            return self._ready.popleft() if self._ready else None

    def wait_full(self, timeout: float) -> bool:
        """Wait until all are ready; False when that takes longer, or fails."""
        with self._changed:
            self._changed.wait_for(lambda: self._resting or len(self._ready) >= self._size, timeout)
            return len(self._ready) >= self._size

    def close(self) -> None:
        """End the thread and remove what nobody took."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._size:
            self._thread.join()
        while self._ready:
            self._discard(self._ready.popleft())

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (len(self._ready) < self._size and not self._resting))
                # Not at once: whoever took one is just about to use processor and kernel locks himself.
                self._changed.wait_for(lambda: self._closed or 2 * len(self._ready) < self._size, _PAUSE)
                if self._closed:
                    return
            try:
                made = self._make()
            except OSError as error:
                _log.warning("cannot make a network namespace ahead: %s", error)
                with self._changed:
                    self._resting = True
                    self._changed.notify_all()
                continue
            with self._changed:
                self._ready.append(made)
                self._changed.notify_all()
