"""Authorization plugins: each request is put to them before it is done, each answer before it is sent.

Docker's protocol (Engine API: access authorization plugin). Where dockerd has let requests past its plugins, this
does otherwise: a JSON body is always read whole and sent whole, however its length was declared (CVE-2024-41110: none
was sent for "Content-Length: 0" or a body that was large), the path is sent as it was understood and not as it was
spelled, and a plugin that cannot be asked, or says that something went wrong, has not allowed anything.
"""

import base64
import logging
import ssl
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from wherry.api.call import Call, media_type
from wherry.api.peer import peer_of
from wherry.api.reply import COMMON_HEADERS, JSON, Answer, Reply, reply_error
from wherry.api.router import Handler, Route
from wherry.api.status import status_of
from wherry.errors import Internal, PermissionDenied, WherryError
from wherry.plugins import Places, Plugin, activate_async

log = logging.getLogger("wherry.api")
SUBSYSTEM = "authz"
_PATIENCE = 5.0
# What would let the plugin act for the user.
_SECRETS = frozenset(("authorization", "x-registry-auth", "x-registry-config"))
# Of the connection, not of the request.
_HOPS = frozenset(("host", "transfer-encoding", "trailer"))


class Authorization:
    """A gate (`wherry.api.gates`): all plugins must allow, asked in their order."""

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self.plugins = tuple(plugins)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the plugins."""
        return tuple(plugin.name for plugin in self.plugins)

    async def __call__(self, call: Call, route: Route, next: Handler) -> Answer:
        """See `wherry.api.gates.Gate`."""
        # Those of the beginning, should they be exchanged meanwhile.
        plugins = self.plugins
        if not plugins or not route.pattern:
            return await next(call)
        request = await _describe(call, route)
        for plugin in plugins:
            await _ask(plugin, "AuthZReq", request)
        try:
            answer = await next(call)
        except WherryError as error:
            failed = reply_error(status_of(error), str(error))
            for plugin in plugins:
                await _ask(plugin, "AuthZRes", request | _describe_answer(failed))
            raise
        # What streams has been sent by now; docker's documentation asks about its request alone, too.
        if isinstance(answer, Reply):
            for plugin in plugins:
                await _ask(plugin, "AuthZRes", request | _describe_answer(answer))
        return answer


async def find_plugins(names: Sequence[str], places: Places | None = None) -> tuple[Plugin, ...]:
    """The plugins of these names, each having shaken hands; raises when one is not there or does not authorize."""
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(await activate_async(name, SUBSYSTEM, patience=_PATIENCE, places=places))
        except WherryError as error:
            raise type(error)(
                f"Error validating authorization plugin: {error.message}", object=name, hint=error.hint
            ) from None
    return tuple(found)


async def _ask(plugin: Plugin, method: str, document: Mapping[str, Any]) -> None:
    try:
        answer = await plugin.call_async(f"AuthZPlugin.{method}", document)
    except WherryError as error:
        log.error("authorization plugin %s: %s", plugin.name, error)
        raise Internal(f"plugin {plugin.name} failed with error: AuthZPlugin.{method}: {error.message}") from None
    if not isinstance(answer, dict) or answer.get("Allow") is not True:
        message = answer.get("Msg") if isinstance(answer, dict) else ""
        raise PermissionDenied(f"authorization denied by plugin {plugin.name}: {message or ''}", object=plugin.name)


async def _describe(call: Call, route: Route) -> dict[str, Any]:
    request, peer = call.request, peer_of(call.request)
    query = request.raw_path.partition("?")[2]
    document: dict[str, Any] = {
        "RequestMethod": request.method,
        "RequestUri": call.target + (f"?{query}" if query else ""),
        "RequestHeaders": _headers(request.headers),
    }
    if peer.user or peer.certificate:
        document |= {"User": peer.user, "UserAuthNMethod": "TLS"}
        pem = ssl.DER_cert_to_PEM_cert(peer.certificate).encode()
        document["RequestPeerCertificates"] = [base64.b64encode(pem).decode()]
    # The body of /auth is a password.
    if route.pattern != "/auth" and media_type(request.headers.get("Content-Type", "")) == JSON:
        body = await call.body()
        if body:
            document["RequestBody"] = base64.b64encode(body).decode()
    return document


def _describe_answer(answer: Reply) -> dict[str, Any]:
    headers = {**COMMON_HEADERS, **(answer.headers or {})}
    document: dict[str, Any] = {"ResponseStatusCode": HTTPStatus(answer.status).value}
    if answer.body:
        headers.setdefault("Content-Type", answer.content_type)
        if media_type(headers["Content-Type"]) == JSON:
            document["ResponseBody"] = base64.b64encode(answer.body).decode()
    document["ResponseHeaders"] = headers
    return document


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    """Of headers that were given twice, the last."""
    found = {}
    for name, value in given.items():
        if name.lower() not in _SECRETS and name.lower() not in _HOPS:
            found["-".join(part.capitalize() for part in name.split("-"))] = value
    return found
