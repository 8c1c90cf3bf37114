"""The daemon's scoped sockets: kept in the store, open while the daemon runs, each with an audit log of its own."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wherry.api import Api
from wherry.api.audit import AuditLog
from wherry.api.connection import ConnectionServer
from wherry.api.operations import SOCKETS, operation
from wherry.api.scope import Scope, parse_scope, to_document
from wherry.api.scope_gate import ScopeGate
from wherry.daemon.unix_socket import bind_unix, find_group, find_user
from wherry.errors import Conflict, NotFound, WherryError
from wherry.state import Delete, Put, Store

log = logging.getLogger("wherry.daemon")
_KEY = "sockets/"


class _Open:
    """One scoped socket, listening unless `error` says why not."""

    def __init__(self, scope: Scope, audit: AuditLog) -> None:
        self.scope = scope
        self.audit = audit
        self.error = ""
        self.inode = 0
        self.factory: ConnectionServer | None = None
        self.server: asyncio.Server | None = None


class ScopedSockets:
    """See `wherry.api.call.SocketKeeper`."""

    def __init__(self, api: Api, store: Store, directory: Path, audit_directory: Path) -> None:
        self._api = api
        self._store = store
        self._directory = directory
        self._audit_directory = audit_directory
        self._open: dict[str, _Open] = {}
        self._changing = asyncio.Lock()

    async def restore(self) -> None:
        """Open those of the last time. One that cannot be opened keeps its place, with the reason."""
        for key, value in self._store.scan(_KEY):
            try:
                scope = parse_scope(json.loads(value), self._known())
            except (WherryError, ValueError) as error:
                log.error("cannot open the socket %s again: %s", key.removeprefix(_KEY), error)
                continue
            made = self._open[scope.name] = self._make(scope)
            try:
                await self._listen(made)
            except WherryError as error:
                made.error = str(error)
                log.error("cannot open the socket %s again: %s", scope.name, error)

    async def create(self, document: Any) -> dict[str, Any]:
        """Open one, and keep it."""
        scope = parse_scope(document, self._known())
        path = scope.path or str(self._directory / f"{scope.name}.sock")
        scope = replace(scope, path=path, created=int(time.time()))
        async with self._changing:
            if scope.name in self._open:
                raise Conflict(f"a socket named {scope.name} exists already", object=scope.name)
            made = self._make(scope)
            await self._listen(made)
            self._open[scope.name] = made
            self._store.write(Put(_KEY + scope.name, json.dumps(to_document(scope)).encode()))
        log.info("scoped socket %s listens on %s: %s", scope.name, path, ", ".join(scope.allow))
        return self.inspect(scope.name)

    def list(self) -> list[dict[str, Any]]:
        """All, by name."""
        return [self.inspect(name) for name in sorted(self._open)]

    def inspect(self, name: str) -> dict[str, Any]:
        """Its scope, where it listens and where its audit log is."""
        found = self._find(name)
        return {
            **to_document(found.scope),
            "Operations": sorted(found.scope.operations()),
            "AuditLog": str(found.audit.path),
            "Listening": found.server is not None,
            "Error": found.error,
        }

    async def remove(self, name: str) -> None:
        """Close it and end its connections. Its audit log stays."""
        async with self._changing:
            found = self._find(name)
            self._store.write(Delete(_KEY + name))
            del self._open[name]
            await self._close(found, 0)
        log.info("scoped socket %s is closed", name)

    def operations(self) -> Mapping[str, Sequence[str]]:
        """The routes of every operation."""
        found: dict[str, list[str]] = {}
        for route in self._api.router.routes():
            name = operation(route)
            if not name.startswith(SOCKETS):
                found.setdefault(name, []).append(f"{route.method} {route.pattern}")
        return {name: sorted(found[name]) for name in sorted(found)}

    async def close(self, seconds: float) -> None:
        """The daemon ends: close all, and forget none."""
        await asyncio.gather(*(self._close(found, seconds) for found in self._open.values()))

    def _known(self) -> dict[str, str]:
        found = {}
        for route in self._api.router.routes():
            name = operation(route)
            found[name] = found[f"{route.method} {route.pattern}"] = name
        return found

    def _find(self, name: str) -> _Open:
        found = self._open.get(name)
        if found is None:
            raise NotFound(f"No such socket: {name}", object=name)
        return found

    def _make(self, scope: Scope) -> _Open:
        return _Open(scope, AuditLog(self._audit_directory / f"{scope.name}.log"))

    async def _listen(self, made: _Open) -> None:
        scope = made.scope
        user = find_user(scope.user) if scope.user else 0
        group = find_group(scope.group) if scope.group else 0
        self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        bound = bind_unix(Path(scope.path), user=user, group=group, mode=int(scope.mode, 8))
        made.inode = Path(scope.path).lstat().st_ino
        made.factory = self._api.server(ScopeGate(scope, made.audit))
        made.server = await asyncio.get_running_loop().create_server(made.factory, sock=bound)

    async def _close(self, found: _Open, seconds: float) -> None:
        if found.server is not None and found.factory is not None:
            found.server.close()
            path = Path(found.scope.path)
            try:
                if path.lstat().st_ino == found.inode:
                    path.unlink()
            except FileNotFoundError:
                pass
            await found.factory.stop(seconds)
            found.server = None
        found.audit.close()
