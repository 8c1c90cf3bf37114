"""A registry to pull from, that can be told to misbehave. One per test, on a port of its own."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from image_fakes import hex_of

from wherry.spec.oci_image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from wherry.spec.platform import host_platform

HOST = host_platform()
PLATFORM = {"os": HOST.os, "architecture": HOST.architecture}
TOKEN = "secret-token"


class FakeRegistry:
    """Blobs and manifests in memory. `requests` are (method, path, headers) of everything that came."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.forms: list[dict[str, Any]] = []
        self.auth = ""  # "", "basic", "bearer"
        self.users = {"joe": "pw"}
        self.blob_answer: Callable[[web.Request, bytes], Awaitable[web.StreamResponse | None]] | None = None
        self.redirect_blobs_to = ""
        self.held: asyncio.Event | None = None
        self.address = ""

    def blob(self, data: bytes, media_type: str = OCI_LAYER, **more: Any) -> dict[str, Any]:
        self.blobs[f"sha256:{hex_of(data)}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{hex_of(data)}", "size": len(data)} | more

    def manifest(self, tag: str, document: dict[str, Any], media_type: str = OCI_MANIFEST) -> dict[str, Any]:
        data = json.dumps({"schemaVersion": 2, "mediaType": media_type} | document).encode()
        digest = f"sha256:{hex_of(data)}"
        self.manifests[tag] = self.manifests[digest] = (media_type, data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def image(self, tag: str, config: bytes, *layers: tuple[bytes, str], **changes: Any) -> dict[str, Any]:
        """A manifest of layers given as (blob, media type)."""
        blobs = [self.blob(data, kind) for data, kind in layers]
        return self.manifest(tag, {"config": self.blob(config, OCI_CONFIG), "layers": blobs} | changes)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeRegistry"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers)))
        path = request.path
        if path == "/token":
            return await self._token(request)
        if path == "/v2/":
            return self._refuse(request) or web.json_response({})
        if not path.startswith("/elsewhere/") and (refusal := self._refuse(request)) is not None:
            return refusal
        name = path.rpartition("/")[2]
        if "/manifests/" in path:
            found = self.manifests.get(name)
            if found is None:
                return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return web.Response(body=found[1], headers={"Content-Type": found[0]})
        if path.endswith("/tags/list"):
            return web.json_response({"tags": [tag for tag in self.manifests if ":" not in tag]})
        if "/blobs/" in path:
            return await self._blob(request, name)
        return _error(404, "NAME_UNKNOWN", "repository name not known to registry")

    async def _blob(self, request: web.Request, digest: str) -> web.StreamResponse:
        if self.held is not None:
            await self.held.wait()
        if self.redirect_blobs_to and not request.path.startswith("/elsewhere/"):
            raise web.HTTPTemporaryRedirect(f"{self.redirect_blobs_to}/elsewhere/blobs/{digest}")
        data = self.blobs.get(digest)
        if data is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.blob_answer is not None and (special := await self.blob_answer(request, data)) is not None:
            return special
        begins = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        headers = {"Content-Range": f"bytes {begins}-{len(data) - 1}/{len(data)}"} if begins else {}
        return web.Response(body=data[begins:], status=206 if begins else 200, headers=headers)

    def _refuse(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if self.auth == "basic" and not self._knows(given):
            return _error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="x"'})
        if self.auth == "bearer" and given != f"Bearer {TOKEN}":
            challenge = f'Bearer realm="http://{self.address}/token",service="a, \\"b\\"",scope="repository:evil:push"'
            if given == "Bearer anonymous":
                challenge += ',error="insufficient_scope"'
            return _error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
        return None

    def _knows(self, header: str) -> bool:
        known = [base64.b64encode(f"{user}:{password}".encode()).decode() for user, password in self.users.items()]
        return header.removeprefix("Basic ") in known

    async def _token(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        if request.method == "POST":
            form = dict(await request.post())
            self.forms.append(form)
            if form.get("refresh_token") == "identity":
                return web.json_response({"access_token": TOKEN})
            if form.get("refresh_token") == "hub":
                return web.json_response({"details": "token expired"}, status=401)
            return _error(401, "UNAUTHORIZED", "bad refresh token")
        if given and not self._knows(given):
            return _error(401, "UNAUTHORIZED", "incorrect username or password")
        offered = {"refresh_token": "identity"} if request.query.get("offline_token") == "true" else {}
        return web.json_response({"token": TOKEN if given else "anonymous"} | offered)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers)
