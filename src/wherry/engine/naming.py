"""Names of containers: telling the resolver who is called what, where.

Containers on user-defined networks have a name server at 127.0.0.11; those on the default bridge only where the daemon
is told so (`bridge-dns`). The resolver is started for the first of them. Every change is one message with all there is
to know of one container; one that was started anew, or found at the daemon's start, is told of all containers.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from wherry.dns.records import Membership, Record
from wherry.engine import hostfiles
from wherry.engine.attachments import dns_names, links_of, wanted
from wherry.engine.backends import Supervised
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.parts import OpenResolver, Resolver
from wherry.errors import Unavailable, WherryError
from wherry.spec.docker import EndpointSettings

log = logging.getLogger(__name__)
_NONE = EndpointSettings()


class Naming:
    """What the resolver knows, and the way to it. Only the loop's thread touches it."""

    def __init__(self, core: Core, open_resolver: OpenResolver | None) -> None:
        self._core = core
        self._open = open_resolver
        self._records: dict[str, Record] = {}
        self._opening = asyncio.Lock()
        self._opened = False
        self._resolver: Supervised[Resolver] = Supervised(
            "resolver", self._make, self._tell_all, lambda resolver: resolver.close()
        )

    async def recover(self, live: Sequence[Container]) -> None:
        """At the daemon's start: these run, and no others."""
        for container in live:
            record = self._record(container, recovering=True)
            if record is not None:
                self._records[container.id] = record
        try:
            if self._records:
                await self._connection()
            elif self._open is not None:
                left = await self._open(lambda: None, False)
                if left is not None:
                    await left.reset(())
                    left.close()
        except (WherryError, OSError) as error:
            # They run, and shall go on; the next that asks for the resolver tries again.
            log.error("containers are without their names: %s", error)

    async def publish(self, container: Container) -> None:
        """It has been connected, renamed, disconnected; nothing to do where it has no name server and needs none."""
        record = self._record(container)
        if record is not None and record != self._records.get(container.id):
            await self._put(record)

    def withdraw(self, id: str) -> None:
        """It has ended. Before its network is given back: until then its network namespace is in use here."""
        if self._records.pop(id, None) is not None and self._resolver.connection is not None:
            self._core.spawn(self._drop(self._resolver.connection, id), f"forgetting the names of {id[:12]}")

    async def close(self) -> None:
        """Disconnect; the resolver goes on while any container needs it."""
        await self._resolver.close()

    async def _put(self, record: Record) -> None:
        self._records[record.id] = record
        try:
            try:
                await (await self._connection()).put(record)
            except Unavailable:
                # Lost just now; the next one may have been told of everything before it knew this one's namespace.
                await (await self._connection()).put(record)
        except WherryError:
            self._records.pop(record.id, None)
            raise

    async def _connection(self) -> Resolver:
        if not self._opened:
            async with self._opening:
                if not self._opened:
                    await self._resolver.open()
                    self._opened = True
                    # Those found at the daemon's start too, when it could not be had then.
                    await self._tell_all()
        return self._resolver.connection or await self._resolver.wait()

    async def _make(self, on_lost: Callable[[], None]) -> Resolver:
        made = None if self._open is None else await self._open(on_lost, True)
        if made is None:
            raise Unavailable("there is no resolver")
        return made

    async def _tell_all(self) -> None:
        connection = self._resolver.connection
        if connection is not None:
            for id in await connection.reset(self._records.values()):
                log.error("%s is without a name server: its network namespace cannot be entered", id)

    async def _drop(self, resolver: Resolver, id: str) -> None:
        try:
            await resolver.drop(id)
        except Unavailable:
            pass  # its successor never knew it

    def _record(self, container: Container, *, recovering: bool = False) -> Record | None:
        definition, config = container.definition, self._core.config
        if self._open is None:
            return None
        endpoints = hostfiles.named(container.endpoints, config)
        known = self._records.get(container.id)
        netns = next((str(endpoint.netns) for endpoint in container.endpoints if endpoint.netns is not None), "")
        if not netns and (known is not None or recovering):
            # It is on no network just now.
            path = self._core.config.exec_root / "netns" / container.id
            netns = str(path) if path.exists() else ""
        if not netns:
            return None
        if not endpoints and known is None:
            # One that has left its last network keeps the resolver.
            directory = self._core.directory(container.id)
            if not (recovering and hostfiles.leads_to_resolver(directory)):
                return None
        settings: Mapping[str, EndpointSettings] = wanted(definition)
        members = []
        for endpoint in endpoints:
            own = settings.get(endpoint.network, _NONE)
            names = dns_names(definition, endpoint.network, own, everywhere=True)
            links = links_of(definition, endpoint.network, own)
            members.append(
                Membership(endpoint.network_id, endpoint.network, endpoint.ipv4, endpoint.ipv6, names, links)
            )
        host = definition.host
        return Record(
            id=container.id,
            netns=netns,
            members=members,
            servers=tuple(host.dns or config.dns) or None,
            forward=any(not endpoint.internal for endpoint in container.endpoints),
            ndots=any(option.startswith("ndots:") for option in host.dns_options or config.dns_options),
        )
