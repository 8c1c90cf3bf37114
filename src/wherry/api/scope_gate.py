"""The gate of a scoped socket: refuses what its scope does not name, and writes down who asked for what."""

import json
import time
from typing import Any

from wherry.api.audit import AuditLog
from wherry.api.call import Call
from wherry.api.containers import Parts
from wherry.api.harmless import check_creation, check_exec, check_object, check_update
from wherry.api.operations import operation
from wherry.api.peer import peer_of
from wherry.api.reply import Answer, Reply, reply_json
from wherry.api.router import Handler, Route
from wherry.api.scope import PRIVILEGED, Scope
from wherry.api.status import status_of
from wherry.errors import NotFound, PermissionDenied, WherryError
from wherry.spec.decode import decode
from wherry.spec.docker import ContainerConfig, ExecConfig


class ScopeGate:
    """Decides about routes, not about paths, and about containers by their full ids."""

    def __init__(self, scope: Scope, audit: AuditLog) -> None:
        self.scope = scope
        self.audit = audit
        self._allowed = scope.operations()
        self._free = PRIVILEGED in self._allowed

    async def __call__(self, call: Call, route: Route, next: Handler) -> Answer:
        """See `wherry.api.gates.Gate`."""
        started = time.perf_counter()
        refusal = await self._refusal(call, route)
        number = self.audit.request(**self._fields(call, route, refusal))
        status = 500
        try:
            if refusal is not None:
                raise refusal
            listing = self.scope.narrowed and route.pattern == "/containers/json"
            answer = await (self._list(call, next) if listing else next(call))
            status = answer.status
        except WherryError as error:
            status = status_of(error)
            raise
        finally:
            self.audit.answer(number, status=status, seconds=round(time.perf_counter() - started, 6))
        return answer

    def _fields(self, call: Call, route: Route, refusal: WherryError | None) -> dict[str, Any]:
        peer = peer_of(call.request)
        fields = {
            "socket": self.scope.name,
            "pid": peer.pid,
            "uid": peer.uid,
            "gid": peer.gid,
            "method": call.request.method,
            "uri": call.request.raw_path[:2048],
            "operation": operation(route) if route.pattern else "",
            "allowed": refusal is None,
        }
        if call.name:
            fields["name"] = call.name[:256]
        if refusal is not None:
            fields["reason"] = str(refusal)
        return fields

    async def _refusal(self, call: Call, route: Route) -> WherryError | None:
        try:
            self._check_route(route)
            if self.scope.narrowed:
                await self._check_container(call, route)
            if not self._free:
                await self._check_body(call, route)
        except WherryError as error:
            return error
        return None

    def _check_route(self, route: Route) -> None:
        name = operation(route) if route.pattern else ""
        if name not in self._allowed and f"{route.method} {route.pattern}" not in self._allowed:
            raise PermissionDenied(
                f"the socket {self.scope.name} may not do this: {name or 'no such operation'}", object=name
            )

    async def _check_container(self, call: Call, route: Route) -> None:
        """Of a container that is not its own, it must not even learn that it is there."""
        kind = route.pattern.split("/")[1]
        if kind == "containers" and call.name:
            call.name = self._own(call, call.name)
            if route.pattern.endswith("/rename"):
                self._check_new_name(call)
        elif kind == "exec":
            try:
                found = await call.engine.execs.inspect(call.name)
                self._own(call, found["ContainerID"])
            except WherryError:
                raise NotFound(f"No such exec instance: {call.name}", object=call.name) from None
        elif route.pattern == "/containers/create":
            await self._check_created(call)
        elif route.pattern == "/events":
            call.sees = self.scope.fits_event

    def _own(self, call: Call, reference: str) -> str:
        try:
            known = call.engine.containers.identity(reference)
        except WherryError:
            known = None
        if known is None or not self.scope.fits(known.name, known.labels):
            raise NotFound(f"No such container: {reference}", object=reference)
        return known.id

    def _check_new_name(self, call: Call) -> None:
        name = call.query.get("name").removeprefix("/")
        if not self.scope.fits_name(name):
            raise PermissionDenied(f"the socket {self.scope.name} may not name a container {name}", object=name)

    async def _check_created(self, call: Call) -> None:
        config = decode(ContainerConfig, await call.json() or {})
        name = call.query.get("name").removeprefix("/")
        if not self.scope.fits(name, config.labels or {}):
            wanted = [f"label {label}" for label in self.scope.labels]
            wanted += [f"a name like {' or '.join(self.scope.names)}"] if self.scope.names else []
            raise PermissionDenied(
                f"containers made by the socket {self.scope.name} must have {' and '.join(wanted)}", object=name
            )

    async def _check_body(self, call: Call, route: Route) -> None:
        """As the handler will read it: the same body through the same decoder."""
        where = route.pattern
        if where == "/containers/create":
            parts = decode(Parts, await call.json() or {})
            check_creation(parts.host_config, parts.networking_config, shared=not self.scope.narrowed)
        elif where == "/containers/{id}/update":
            check_update(await call.json() or {})
        elif where in ("/volumes/create", "/networks/create"):
            check_object(await call.json(optional=True) or {})
        elif where == "/containers/{id}/exec":
            check_exec(decode(ExecConfig, await call.json() or {}))

    async def _list(self, call: Call, next: Handler) -> Answer:
        """Its own of all containers; the limit counts only them."""
        limit = call.query.integer("limit") or 0
        if limit > 0:
            call.query = call.query.edited(limit=None, all="1")
        answer = await next(call)
        if not isinstance(answer, Reply) or answer.status != 200:
            return answer
        own = [
            item
            for item in json.loads(answer.body)
            if self.scope.fits(item["Names"][0].removeprefix("/"), item["Labels"] or {})
        ]
        return reply_json(own[:limit] if limit > 0 else own)
