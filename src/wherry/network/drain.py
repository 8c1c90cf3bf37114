"""Addresses on their way back.

A sandbox's veth pair goes with its network namespace, which the kernel takes down in its own time (some 20 ms), or not
at all while another process still holds the namespace. Until then the old owner answers for its address, so the
address must not go to another. Deleting the pair at once would take as long, on the hot path.
"""

import errno
import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic, sleep

from wherry.kernel.netlink import Link, Netlink
from wherry.network.bridge import delete_links

_log = logging.getLogger(__name__)
_POLL = 0.01
_PATIENCE = 0.5
_REST = 1.0
_GLANCE = 0.0005


class Drain:
    """Calls back once a link is gone, and deletes it itself when that takes too long. One thread, idle when empty."""

    def __init__(self) -> None:
        # Of its own: a deletion keeps the socket for as long as it takes.
        self._host, self._glances = Netlink(), Netlink()
        self._waiting: dict[str, tuple[float, Callable[[], None]]] = {}
        self._changed = Condition()
        self._closed = False
        self._hurry = False
        self._thread = Thread(target=self._run, name="network-drain", daemon=True)
        self._thread.start()

    def add(self, link: str, gone: Callable[[], None], *, delete: bool = False) -> None:
        """Call `gone`, from the drain's thread, once there is no link of this name. `delete`: and delete it at once."""
        with self._changed:
            self._waiting[link] = (monotonic() + (0 if delete else _PATIENCE), gone)
            self._hurry |= delete
            self._changed.notify_all()

    def delete(self, link: str) -> None:
        """Delete a link and wait until it is out of everybody's sight; absent is no error.

        The kernel takes it from its namespace at once, and then waits for its last readers: 15 ms nobody needs to see.
        """
        self.add(link, lambda: None, delete=True)
        deadline = monotonic() + _PATIENCE
        while monotonic() < deadline:
            try:
                self._glances.link(link)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            sleep(_GLANCE)

    def wait_empty(self, timeout: float) -> bool:
        """Wait until every link is gone."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout)

    def close(self) -> None:
        """End the thread. What is still waiting is left to the next start's clean-up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._host.close()
        self._glances.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                self._changed.wait_for(lambda: self._closed or self._hurry, _POLL)
                if self._closed:
                    return
                self._hurry = False
                waiting = dict(self._waiting)
            try:
                self._sweep(waiting)
            except OSError as error:
                _log.warning("cannot clean up network interfaces, trying again: %s", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, _REST)

    def _sweep(self, waiting: dict[str, tuple[float, Callable[[], None]]]) -> None:
        present = {name: link for name in waiting if (link := self._link(name)) is not None}
        gone = [name for name in waiting if name not in present]
        for name in gone:
            waiting[name][1]()
        if gone:
            with self._changed:
                for name in gone:
                    self._waiting.pop(name, None)
                self._changed.notify_all()
        now = monotonic()
        delete_links(self._host, [link for name, link in present.items() if waiting[name][0] < now])

    def _link(self, name: str) -> Link | None:
        try:
            return self._host.link(name)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
