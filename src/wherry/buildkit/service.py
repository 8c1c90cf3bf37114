"""Everything of BuildKit's that one daemon has, and the calls it answers."""

from pathlib import Path
from typing import TYPE_CHECKING

from wherry.buildkit.bridge import Bridge
from wherry.buildkit.control import Control
from wherry.buildkit.failures import status_of
from wherry.buildkit.frontend import Frontend
from wherry.buildkit.grpc import Call, Server
from wherry.buildkit.http2 import Channel, Wire
from wherry.buildkit.jobs import Jobs
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.sessions import Sessions
from wherry.buildkit.storage import Storage
from wherry.buildkit.synced import SyncedDirectories

if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.engine import Engine


class BuildKit:
    """Made when the first client comes."""

    def __init__(self, engine: "Engine") -> None:
        root = Path(engine.config.data_root) / "build"
        self.sessions = Sessions()
        self.jobs = Jobs()
        self.directories = SyncedDirectories(root / "synced")
        self.frontend = Frontend(engine, self.sessions, self.directories, engine.builds.contexts)
        self.control = Control(engine, self.jobs, self.sessions, self.frontend)
        self.bridge = Bridge(self.jobs, self.frontend, self.control)
        self._handlers = {
            **self.control.handlers(),
            **self.bridge.handlers(),
            **Storage(engine, self.directories).handlers(),
            "/grpc.health.v1.Health/Check": _healthy,
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export": _discard,
        }

    def serve(self, wire: Wire, on_lost: "Callable[[], object]") -> Channel:
        """A client that calls us."""
        server = Server(self._handlers, status_of)
        server.channel = Channel(wire, client=False, on_stream=server.on_stream, on_lost=on_lost)
        return server.channel


async def _healthy(call: Call) -> None:
    # HealthCheckResponse{status: SERVING}
    await call.stream.recv()
    call.begin()
    await call.stream.send([b"\x08\x01"])


async def _discard(call: Call) -> None:
    """What the client measured of itself: nobody here collects it."""
    while await call.stream.recv() is not None:
        pass
    call.begin()
    await call.send(pb.Empty())
