"""The engine's side of the resolver process (asyncio)."""

from collections.abc import Callable, Iterable
from pathlib import Path

from wherry.dns.records import Record
from wherry.ipc.client import Connection
from wherry.ipc.spawn import spawn as start


class Resolver:
    """A connection to the resolver. Methods raise Unavailable when it has gone; then connect anew and `reset`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, path: Path, on_lost: Callable[[], None]) -> "Resolver":
        """Connect to the resolver at `path`, and be sure that it answers."""
        resolver = cls(Connection("resolver", path, lambda name, *values: None, on_lost))
        await resolver._connection.ask("ping")
        return resolver

    async def put(self, record: Record) -> None:
        """Serve a sandbox, or tell what has changed. Internal when that cannot be done in its namespace."""
        await self._connection.ask("put", record=record.to_json())

    async def drop(self, id: str) -> None:
        """It has gone; not known is no error."""
        await self._connection.ask("drop", id=id)

    async def reset(self, records: Iterable[Record]) -> list[str]:
        """These are all there are; the ids of those that cannot be served."""
        failed: list[str] = await self._connection.ask("reset", records=[record.to_json() for record in records])
        return failed

    def close(self) -> None:
        """Disconnect; it goes on while it has anyone to serve."""
        self._connection.close()


def spawn(exec_root: Path) -> Path:
    """Start the resolver, or find it; its socket, answering. Blocks."""
    start("resolver", "wherry.dns.resolver", exec_root)
    return exec_root / "resolver.sock"
