"""HTTP: which path means what, who may, and how refusals look.

/v2/                                    /v2/_catalog                     /token
/v2/<name>/blobs/<digest>               /v2/<name>/blobs/uploads/[<id>]
/v2/<name>/manifests/<tag or digest>    /v2/<name>/tags/list             /v2/<name>/referrers/<digest>
/healthz   /readyz
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from wherry.errors import WherryError
from wherry.registry import blobs, listing, manifests, uploads
from wherry.registry.access import Identity, now
from wherry.registry.errors import Refused
from wherry.registry.service import Call, Service
from wherry.registry.store import check_name

log = logging.getLogger(__name__)
Handler = Callable[[Call], Awaitable[web.StreamResponse]]

# The path's form after /v2/, the route's name, and by method the handler and the permission it takes.
_ROUTES: tuple[tuple[re.Pattern[str], str, dict[str, tuple[Handler, str]]], ...] = (
    (
        re.compile(r"(?P<name>.+)/blobs/uploads/?(?P<reference>)"),
        "upload",
        {"POST": (uploads.begin, "push")},
    ),
    (
        re.compile(r"(?P<name>.+)/blobs/uploads/(?P<reference>[^/]+)"),
        "upload",
        {
            "GET": (uploads.status, "push"),
            "PATCH": (uploads.append, "push"),
            "PUT": (uploads.finish, "push"),
            "DELETE": (uploads.cancel, "push"),
        },
    ),
    (
        re.compile(r"(?P<name>.+)/blobs/(?P<reference>[^/]+)"),
        "blob",
        {"GET": (blobs.get, "pull"), "HEAD": (blobs.get, "pull"), "DELETE": (blobs.delete, "delete")},
    ),
    (
        re.compile(r"(?P<name>.+)/manifests/(?P<reference>[^/]+)"),
        "manifest",
        {
            "GET": (manifests.get, "pull"),
            "HEAD": (manifests.get, "pull"),
            "PUT": (manifests.put, "push"),
            "DELETE": (manifests.delete, "delete"),
        },
    ),
    (re.compile(r"(?P<name>.+)/tags/list(?P<reference>)"), "tags", {"GET": (listing.tags, "pull")}),
    (
        re.compile(r"(?P<name>.+)/referrers/(?P<reference>[^/]+)"),
        "referrers",
        {"GET": (manifests.referrers, "pull")},
    ),
)
_WRITING = ("push", "delete")


class Server:
    """The registry's web application."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.application = web.Application()
        self.application.router.add_route("*", "/{path:.*}", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        began = time.perf_counter()
        route, status = "other", 500
        try:
            route, work = await self._route(request)
            try:
                response = await work()
            except Refused as refused:
                response = _refusal(refused, request)
            status = response.status
            response.headers["Docker-Distribution-API-Version"] = "registry/2.0"
            response.headers["X-Content-Type-Options"] = "nosniff"
        except WherryError as error:
            log.error("%s %s: %s", request.method, request.path, error)
            status, response = 500, _refusal(Refused("UNAVAILABLE", str(error), status=500), request)
        except OSError as error:
            if request.transport is None or request.transport.is_closing():
                raise
            # No space, a disk that fails: told to the client, which may come back.
            log.exception("%s %s", request.method, request.path)
            reason = error.strerror or "the storage failed"
            status, response = 503, _refusal(Refused("UNAVAILABLE", reason.lower()), request)
        finally:
            self._service.metrics.request(request.method, route, status, time.perf_counter() - began)
        return response

    async def _route(self, request: web.Request) -> tuple[str, Callable[[], Awaitable[web.StreamResponse]]]:
        path, service = request.path, self._service
        if path in ("/healthz", "/readyz"):
            return "other", lambda: self._health(path)
        if path == "/token" and service.access.tokens is not None and service.access.tokens.issues:
            return "token", lambda: self._token(request)
        if path in ("/v2", "/v2/"):
            return "base", lambda: self._base(request)
        if path == "/v2/_catalog":
            return "catalog", lambda: self._catalog(request)
        for pattern, route, methods in _ROUTES:
            if path.startswith("/v2/") and (match := pattern.fullmatch(path, 4)):
                return route, partial(self._call, request, match["name"], match["reference"], methods)
        return "other", _not_found

    async def _call(
        self, request: web.Request, name: str, reference: str, methods: dict[str, tuple[Handler, str]]
    ) -> web.StreamResponse:
        if request.method not in methods:
            raise Refused("UNSUPPORTED", "the operation is unsupported", headers={"Allow": ", ".join(methods)})
        handler, action = methods[request.method]
        check_name(name)
        identity = await self._service.access.identify(request.headers.get("Authorization"))
        self._service.access.require(identity, name, action)
        if action in _WRITING and (self._service.read_only or self._service.proxy is not None):
            raise Refused("UNSUPPORTED", "this registry is read-only")
        return await handler(Call(self._service, request, identity, name, reference))

    async def _base(self, request: web.Request) -> web.StreamResponse:
        identity = await self._service.access.identify(request.headers.get("Authorization"))
        self._service.access.require_user(identity)
        return web.json_response({})

    async def _catalog(self, request: web.Request) -> web.StreamResponse:
        identity = await self._service.access.identify(request.headers.get("Authorization"))
        self._service.access.require_user(identity)
        return await listing.catalog(self._service, request, identity)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        """GET with basic credentials, POST as OAuth 2 has it (spec/auth/token.md, oauth.md)."""
        access = self._service.access
        assert access.tokens is not None
        if request.method == "POST":
            form = await request.post()
            if form.get("grant_type") != "password":
                raise Refused("UNSUPPORTED", "only grant_type=password is supported", status=400)
            identity = await access.sign_in(str(form.get("username", "")), str(form.get("password", "")))
            scopes = [str(scope) for scope in form.getall("scope", [])]
        else:
            identity = await self._identify_by_password(request.headers.get("Authorization"))
            scopes = request.query.getall("scope", [])
        return web.json_response(access.tokens.issue(identity.user, access.grant(identity, scopes), now()))

    async def _identify_by_password(self, authorization: str | None) -> Identity:
        if not authorization:
            return Identity("")
        scheme, _, _ = authorization.partition(" ")
        if scheme.lower() != "basic":
            raise Refused("UNAUTHORIZED", "a token is had by name and password")
        return await self._service.access.identify(authorization)

    async def _health(self, path: str) -> web.StreamResponse:
        if path == "/readyz":
            try:
                await self._service.repositories.backend.check()
            except Exception as error:  # noqa: BLE001 - whatever a store's library raises means the same here
                log.warning("the storage is not ready: %s", error)
                return web.json_response({"storage": "unavailable"}, status=503)
        return web.json_response({"status": "ok"})


async def _not_found() -> web.StreamResponse:
    return web.Response(status=404, text="404 page not found\n")


def _refusal(refused: Refused, request: web.Request) -> web.StreamResponse:
    response = web.json_response(refused.document(), status=refused.status, headers=refused.headers)
    if not request.content.at_eof():
        # What is still on its way is not waited for, whatever its size.
        response.force_close()
    return response
