"""The resolver process: every container's name server, at 127.0.0.11 in its own network namespace.

Single-threaded. It outlives the daemon, so names are found while that is away. Messages as wherry.ipc says:

    "put"     {"record": {...}}: one sandbox, as wherry.dns.records makes it, in place of what was known of it
    "drop"    {"id": ...}: it has gone; its namespace is let go of
    "reset"   {"records": [...]}: these, and no others. Answered by the ids of those that could not be served
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal imports enum
import gc

from wherry.dns.door import Home
from wherry.dns.names import Member, Names
from wherry.dns.sandbox import Sandbox
from wherry.dns.upstream import HostServers, Upstream
from wherry.errors import Internal, Unimplemented
from wherry.ipc import background, seqpacket
from wherry.ipc.poller import Poller
from wherry.ipc.server import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from wherry.ipc.server import Call

    Arguments = dict[str, Any]


class ResolverProcess:
    """Every sandbox by its id."""

    def __init__(self, listener: _socket.socket) -> None:
        self._poller = Poller()
        self._home = Home()
        self._names = Names()
        self._upstream = Upstream(self._poller, self._home, HostServers())
        self._sandboxes: dict[str, Sandbox] = {}
        self._server = Server(self._poller, listener, self._serve, lambda: not self._sandboxes)

    def serve_forever(self) -> None:
        """The loop."""
        while True:
            self._poller.run_once()

    def _serve(self, call: Call, operation: str, arguments: Arguments, fds: list[int]) -> None:
        seqpacket.close(fds)
        if operation == "put":
            self._put(arguments["record"])
            call.answer(None)
        elif operation == "drop":
            self._drop(arguments["id"])
            call.answer(None)
        elif operation == "reset":
            call.answer(self._reset(arguments["records"]))
        elif operation == "sandboxes":
            call.answer(list(self._sandboxes))
        elif operation == "stop":
            raise SystemExit(0)
        else:
            raise Unimplemented(f"the resolver knows no operation {operation!r}", hint="restart the resolver")

    def _put(self, record: dict[str, Any]) -> None:
        id = record["id"]
        sandbox = self._sandboxes.get(id)
        if sandbox is None:
            sandbox = self._sandboxes[id] = Sandbox(id, self._poller, self._home, self._names, self._upstream)
        try:
            sandbox.configure(record)
        except OSError as error:
            self._drop(id)
            raise Internal(f"no names can be served in {id}: {error}", object=id) from error
        self._forget_answers(self._names.put(id, tuple(Member(member) for member in record["members"])))

    def _drop(self, id: str) -> None:
        sandbox = self._sandboxes.pop(id, None)
        if sandbox is not None:
            sandbox.close()
        self._forget_answers(self._names.drop(id))

    def _reset(self, records: list[dict[str, Any]]) -> list[str]:
        failed = []
        for id in self._sandboxes.keys() - {record["id"] for record in records}:
            self._drop(id)
        for record in records:
            try:
                self._put(record)
            except Internal:
                failed.append(record["id"])
        return failed

    def _forget_answers(self, affected: set[str]) -> None:
        for id in affected:
            sandbox = self._sandboxes.get(id)
            if sandbox is not None:
                sandbox.answers.clear()


def main(exec_root: str) -> int:
    """Become the resolver of `exec_root`; returns only in the starter, 0 once the socket listens."""
    return background.run(f"{exec_root}/resolver.lock", lambda ready: _serve(f"{exec_root}/resolver.sock", ready))


def _serve(path: str, ready: Callable[[], None]) -> None:
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)
    process = ResolverProcess(seqpacket.listen(path))
    gc.collect()
    gc.freeze()
    ready()
    process.serve_forever()
