"""The shipper process: delivers the logs of containers whose driver is a remote one. Started when there is one.

Why a process of its own. The logger is single-threaded and holds every container's streams: it may neither wait for a
remote side nor carry TLS, HTTP and the vendors' libraries. So it only ever writes files, equally fast for every driver,
and the shipper reads these files. The file is the queue between them: it bounds what may wait, outlives both, is what
`logs` reads ("dual logging"), and costs no copying through a socket. Neither can be stopped or crashed by the other.

- The shipper dies: the daemon starts it again; it finds its work in `<exec-root>/shipping` and goes on at each cursor.
- The logger dies: the next one appends to the same files.
- The daemon dies: nothing happens here.
- A container ends, or is removed: what is not delivered yet still is, from the open files, for ten minutes at most.
- The other side is away: blocking mode holds everything until the log's files are full (cache-max-size times
  cache-max-file), then the container waits; docker's waits at once, and what dockerd holds in memory is lost with it.

A thread for each container, because the vendors' libraries and TLS block, and what one remote side makes wait concerns
one container only. Messages as wherry.ipc says:

    "open"    {"id", "target": {driver, path, options, cursor, info}}      answered when the other side was reached
    "finish"  {"id"}                                                       answered when all is delivered, or given up
    "list"    the ids
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from wherry.errors import Internal, Unimplemented, WherryError
from wherry.ipc import background, seqpacket
from wherry.ipc.poller import READABLE, Poller
from wherry.ipc.server import Call, Server
from wherry.logs.courier import Courier
from wherry.spec import fastjson

_STACK = 512 * 1024


class Shipper:
    """Every courier by its container's id. All but the couriers runs in the main thread."""

    def __init__(self, exec_root: Path) -> None:
        self._exec_root = exec_root
        self._directory = exec_root / "shipping"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._couriers: dict[str, Courier] = {}
        self._opening: dict[str, list[Call]] = {}
        self._waiting: dict[str, list[Call]] = {}
        self._done: list[tuple[str, Courier, Exception | None]] = []
        self._poller = Poller()
        self._news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poller.add(self._news, READABLE, lambda events: self._take_news())
        listener = seqpacket.listen(str(exec_root / "shipper.sock"))
        self._server = Server(self._poller, listener, self._serve, self._idle)

    def serve_forever(self) -> None:
        """Go on with what an earlier shipper left, and serve."""
        for path in self._directory.glob("*.json"):
            self._recover(path)
        while True:
            self._poller.run_once()

    def _idle(self) -> bool:
        return not self._couriers and not self._opening

    def _serve(self, call: Call, operation: str, arguments: dict[str, Any], fds: list[int]) -> None:
        seqpacket.close(fds)
        if operation == "open":
            self._open(call, arguments["id"], arguments["target"])
        elif operation == "finish":
            self._finish(call, arguments["id"])
        elif operation == "list":
            call.answer([*self._couriers, *self._opening])
        elif operation == "stop":
            raise SystemExit(0)
        else:
            raise Unimplemented(f"the shipper knows no operation {operation!r}", hint="restart the shipper")

    def _open(self, call: Call, id: str, target: dict[str, Any]) -> None:
        if id in self._opening:
            self._opening[id].append(call)
            return
        running = self._couriers.get(id)
        if running is not None:
            # The container was started again before its last run's messages were all delivered: they come first.
            running.resume()
            self._note(id, target, ended=False)
            for waiting in self._waiting.pop(id, []):
                waiting.answer(None)
            call.answer(None)
            return
        Path(target["path"]).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            courier = Courier(id, target, self._directory, self._tell_room, self._ended)
        except (OSError, ImportError) as error:
            raise Internal(f"log driver {target['driver']}: {error}", object=id) from None
        self._note(id, target, ended=False)
        self._opening[id] = [call]
        threading.Thread(target=self._connect, args=(courier,), daemon=True).start()

    def _connect(self, courier: Courier) -> None:
        """In a thread: other containers are served meanwhile."""
        failure: Exception | None = None
        try:
            courier.connect()
        except (OSError, WherryError) as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a thread's root; a library's own errors
            failure = Internal(repr(error))
        self._done.append(("connected", courier, failure))
        os.eventfd_write(self._news, 1)

    def _finish(self, call: Call, id: str) -> None:
        courier = self._couriers.get(id)
        if courier is None:
            call.answer(None)
            return
        self._waiting.setdefault(id, []).append(call)
        path = self._directory / f"{id}.json"
        if path.exists():
            noted = fastjson.loads(path.read_text())
            self._note(id, noted["target"], ended=True)
        courier.finish()

    def _take_news(self) -> None:
        os.eventfd_read(self._news)
        while self._done:
            what, courier, failure = self._done.pop(0)
            if what == "connected":
                self._connected(courier, failure)
            else:
                self._gone(courier)
        self._server.leave_when_idle()

    def _connected(self, courier: Courier, failure: Exception | None) -> None:
        calls = self._opening.pop(courier.id, [])
        if failure is None:
            self._couriers[courier.id] = courier
            courier.start()
            for call in calls:
                call.answer(None)
            return
        courier.close()
        self._forget(courier.id)
        for call in calls:
            text = getattr(failure, "message", "") or getattr(failure, "strerror", "") or str(failure)
            hint = getattr(failure, "hint", None)
            call.fail(Internal(f"failed to initialize logging driver: {text}", hint=hint))

    def _gone(self, courier: Courier) -> None:
        courier.thread.join()
        courier.close()
        self._couriers.pop(courier.id, None)
        self._forget(courier.id)
        for call in self._waiting.pop(courier.id, []):
            call.answer(None)

    def _ended(self, courier: Courier) -> None:
        self._done.append(("ended", courier, None))
        os.eventfd_write(self._news, 1)

    def _tell_room(self, id: str) -> None:
        try:
            connection = seqpacket.connect(str(self._exec_root / "logger.sock"))
        except OSError:
            return  # its successor looks for itself
        try:
            seqpacket.send(connection, fastjson.dumps({"seq": 1, "op": "delivered", "args": {"id": id}}).encode())
            seqpacket.receive(connection)
        finally:
            connection.close()

    def _recover(self, path: Path) -> None:
        try:
            noted = fastjson.loads(path.read_text())
            courier = Courier(path.stem, noted["target"], self._directory, self._tell_room, self._ended)
        except (OSError, ValueError, KeyError, WherryError) as error:
            print(f"{path.stem}: cannot be delivered: {error}", file=sys.stderr, flush=True)
            path.unlink(missing_ok=True)
            return
        self._couriers[path.stem] = courier
        if noted["ended"]:
            courier.finish()
        courier.start()

    def _note(self, id: str, target: dict[str, Any], *, ended: bool) -> None:
        path = self._directory / f"{id}.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(fastjson.dumps({"target": target, "ended": ended}))
        temporary.rename(path)

    def _forget(self, id: str) -> None:
        for ending in ("json", "cursor"):
            (self._directory / f"{id}.{ending}").unlink(missing_ok=True)


def main(exec_root: str) -> int:
    """Become the shipper of `exec_root`; returns only in the starter, 0 once the socket listens."""
    return background.run(f"{exec_root}/shipper.lock", lambda ready: _serve(Path(exec_root), ready))


def _serve(exec_root: Path, ready: Any) -> None:
    os.umask(0o077)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.stack_size(_STACK)
    # Started without site-packages, as every helper; the vendors' libraries are there.
    import site

    site.main()
    shipper = Shipper(exec_root)
    ready()
    try:
        shipper.serve_forever()
    finally:
        os._exit(0)
