"""The daemon's nftables table: who is in it, how it changes, and that it stays."""

import errno
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from threading import Lock, Thread

from wherry.errors import FailedPrecondition
from wherry.kernel.conntrack import Conntrack
from wherry.kernel.nftables import Nftables
from wherry.kernel.nftelements import Elements
from wherry.kernel.nftwatch import TableWatch
from wherry.network import rules
from wherry.network.endpoint import Endpoint
from wherry.network.rules import Element, Segment, TableOptions

_log = logging.getLogger(__name__)
_UDP = 17
_MANY = 16


class Firewall:
    """Made by starting it. Every method may be called from any thread; changes of the table wait for each other.

    When somebody flushes the rules of the whole machine (a firewall's reload does), the kernel tells, and everything is
    said again at once.
    """

    def __init__(self, options: TableOptions) -> None:
        self._options = options
        self._segments: dict[str, Segment] = {}
        # What the table leads to: (sandbox, network) → endpoint. Guarded, with the table itself, by the lock.
        self._published: dict[tuple[str, str], Endpoint] = {}
        self._lock = Lock()
        self._nft = _open_nftables()
        self._elements = Elements()
        self._conntrack = Conntrack()
        self._closed = False
        self._watch = TableWatch()
        self._thread = Thread(target=self._guard, name="network-rules", daemon=True)

    @property
    def nft(self) -> Nftables:
        """For questions."""
        return self._nft

    def start(self, segments: Iterable[Segment], published: Iterable[Endpoint]) -> None:
        """Make the table."""
        with self._lock:
            self._segments = {segment.key: segment for segment in segments}
            self._published = {(e.sandbox, e.network_id): e for e in published if e.ports}
            self._say_everything()
        self._thread.start()

    def add_segment(self, segment: Segment) -> None:
        """Make a network known, or anew."""
        with self._lock:
            old = self._segments.get(segment.key)
            commands = rules.remove_segment(self._options.table, old) if old is not None else ""
            self._segments[segment.key] = segment
            self._change(commands + rules.add_segment(self._options.table, segment))

    def remove_segment(self, key: str) -> None:
        """Forget a network; not known is no error."""
        with self._lock:
            segment = self._segments.pop(key, None)
            if segment is not None:
                self._change(rules.remove_segment(self._options.table, segment))

    def close_links6(self, links: tuple[str, ...]) -> None:
        """Keep IPv6 from being forwarded between these links."""
        with self._lock:
            if links != self._options.closed6:
                self._options = self._options._replace(closed6=links)
                self._say_everything()

    def publish(self, endpoint: Endpoint) -> None:
        """Lead an endpoint's ports to it."""
        if not endpoint.ports:
            return
        with self._lock:
            self._published[endpoint.sandbox, endpoint.network_id] = endpoint
            self._change_elements((), rules.elements(endpoint))
        self._forget(replace(endpoint, ports=()), endpoint)

    def replace(self, old: Endpoint, new: Endpoint) -> None:
        """Lead other ports to an endpoint, those that stay untouched; on failure all is as before."""
        gone = replace(old, ports=tuple(port for port in old.ports if port not in new.ports))
        more = replace(new, ports=tuple(port for port in new.ports if port not in old.ports))
        key = (new.sandbox, new.network_id)
        with self._lock:
            self._published[key] = new
            try:
                self._change_elements(rules.elements(gone), rules.elements(more))
            except BaseException:
                self._published[key] = old
                raise
            if not new.ports:
                del self._published[key]
        self._forget(gone, more)

    def _forget(self, gone: Endpoint, more: Endpoint) -> None:
        """Drop what the kernel tracks of datagrams: a flow never ends while somebody goes on sending."""
        if gone.ipv4 and any(port.proto == "udp" for port in gone.ports):
            self._conntrack.forget_server(gone.ipv4)
        for port in more.ports:
            if port.proto == "udp" and port.host_port and port.count <= _MANY:
                for offset in range(port.count):
                    self._conntrack.forget_port(_UDP, port.host_port + offset)

    def differences(self) -> tuple[set[str], set[str]]:
        """Published ports that are not in the table, and those in the table that nobody has: "tcp . 80 : ..."."""
        with self._lock:
            text = self._nft.run(f"list table inet {self._options.table}") if self._has_table() else ""
            expected = {piece for endpoint in self._published.values() for piece in rules.written(endpoint)}
        found = rules.read_ports(text)
        return expected - found, found - expected

    def restore(self) -> None:
        """Say the table anew, whatever it is now."""
        with self._lock:
            self._say_everything()

    def withdraw(self, endpoint: Endpoint) -> None:
        """Undo `publish`; not published is no error."""
        with self._lock:
            known = self._published.pop((endpoint.sandbox, endpoint.network_id), None)
            if known is None:
                return
            self._change_elements(rules.elements(known), ())
        self._forget(known, replace(known, ports=()))

    def close(self, *, remove: bool) -> None:
        """Let go of sockets and the thread; with `remove` the table goes."""
        with self._lock:
            self._closed = True
        self._watch.stop()
        if self._thread.is_alive():
            self._thread.join()
        self._watch.close()
        with closing(self._nft), closing(self._elements), closing(self._conntrack):
            if remove:
                with suppress(OSError):
                    self._nft.run(f"add table inet {self._options.table}\ndelete table inet {self._options.table}")

    def _change_elements(self, gone: Iterable[Element], more: Iterable[Element]) -> None:
        """Call with the lock held, and `_published` as it is to be."""
        self._perform(lambda: self._elements.change(self._options.table, rules.changes(gone, more)))

    def _change(self, commands: str) -> None:
        """Call with the lock held, and `_segments` as it is to be."""
        self._perform(lambda: self._nft.run(commands))

    def _perform(self, change: Callable[[], object]) -> None:
        try:
            change()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY):
                raise
            _log.warning("restoring the nftables table %s, which was changed from outside", self._options.table)
            self._say_everything()

    def _say_everything(self) -> None:
        self._nft.run(rules.table(self._options, self._segments.values(), self._published.values()))

    def _guard(self) -> None:
        while self._watch.wait():
            with self._lock:
                if self._closed or self._has_table():
                    continue
                _log.warning("the nftables table %s was deleted from outside: restoring it", self._options.table)
                try:
                    self._say_everything()
                except OSError as error:
                    _log.error("cannot restore the nftables table %s: %s", self._options.table, error)

    def _has_table(self) -> bool:
        return f"table inet {self._options.table}\n" in self._nft.run("list tables inet")


def _open_nftables() -> Nftables:
    try:
        return Nftables()
    except OSError as error:
        raise FailedPrecondition(os.fsdecode(error.strerror or str(error))) from None
