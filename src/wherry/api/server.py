"""The Engine HTTP API of one engine: from a request to an answer, and from an error to Docker's error document."""

import asyncio
import logging
import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote

from aiohttp.web import StreamResponse
from aiohttp.web_request import BaseRequest

from wherry import errors
from wherry.api import (
    alteration,
    archive,
    build,
    buildkit,
    commit,
    containers,
    execs,
    images,
    networks,
    sockets,
    stats,
    streams,
    system,
    unsupported,
    volumes,
    websocket,
)
from wherry.api.call import Call, Query, SocketKeeper, Version
from wherry.api.connection import ConnectionServer, connection_of
from wherry.api.gates import Gate, pass_gates
from wherry.api.reply import MAXIMUM_VERSION, MINIMUM_VERSION, Answer, Reply, TakenOver, reply_error
from wherry.api.router import Route, Router
from wherry.api.status import status_of

if TYPE_CHECKING:
    from wherry.engine import Engine

log = logging.getLogger("wherry.api")

_NEWEST: Version = tuple(int(part) for part in MAXIMUM_VERSION.split("."))
_OLDEST: Version = tuple(int(part) for part in MINIMUM_VERSION.split("."))
_PLAIN = "/:@!$&'()*+,;=~"
_VERSIONED = re.compile(r"/v([0-9][0-9.]*)(/.*)")

_MODULES = (
    system,
    containers,
    alteration,
    build,
    buildkit,
    commit,
    streams,
    stats,
    execs,
    archive,
    images,
    volumes,
    networks,
    sockets,
    websocket,
    unsupported,
)


class Api:
    """Answers requests to one engine; `server()` gives what `loop.create_server` wants."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.router = Router(route for module in _MODULES for route in module.ROUTES)
        self.gates: tuple[Gate, ...] = ()
        """What every request passes, by whichever socket it comes: authorization plugins, for instance."""
        self.sockets: SocketKeeper | None = None
        """Who makes further sockets (POST /wherry/sockets)."""

    def server(self, *gates: Gate) -> ConnectionServer:
        """A factory of connections, for any number of listening sockets of the running loop.

        `gates`: what requests by these sockets pass before those of `self.gates`.
        """
        return ConnectionServer(
            partial(self.handle, gates),
            access_log=None,
            logger=log,
            auto_decompress=False,
            keepalive_timeout=3630,
            lingering_time=2.0,
            read_bufsize=256 << 10,
            max_line_size=64 << 10,
            max_field_size=64 << 10,
        )

    async def handle(self, gates: tuple[Gate, ...], request: BaseRequest) -> StreamResponse:
        """The answer to `request`; never raises for what a client or the engine did."""
        answer: Answer
        connection = connection_of(request)
        connection.begin(request)
        try:
            answer = await self._answer(gates, request)
        except errors.WherryError as error:
            answer = reply_error(status_of(error), str(error))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.raw_path)
            answer = reply_error(500, f"internal error: {type(error).__name__}: {error}")
        if not isinstance(answer, TakenOver):
            connection.release()
        return cast(StreamResponse, answer)

    async def _answer(self, gates: tuple[Gate, ...], request: BaseRequest) -> Answer:
        path, _, query = request.raw_path.partition("?")
        if not path.startswith("/"):
            # An absolute target (RFC 9112, 3.2.2), as proxies send it.
            path = request.rel_url.raw_path
        version, prefix = _NEWEST, ""
        if path.startswith("/v"):
            versioned = _VERSIONED.fullmatch(path)
            if versioned:
                refusal = _refuse_version(versioned[1])
                if refusal is not None:
                    return refusal
                version, prefix, path = _parse_version(versioned[1]), f"/v{versioned[1]}", versioned[2]
        if "%" in path:
            path = unquote(path)
        gates += self.gates
        found = self.router.find(request.method, path)
        if found is None:
            if not gates:
                return reply_error(404, "page not found")
            found = Route(request.method, "", _not_found), ""
        route, name = found
        call = Call(self._engine, request, version, name, Query(query), self.sockets)
        if not gates:
            return await route.handler(call)
        call.target = prefix + quote(path, safe=_PLAIN)
        return await pass_gates(gates, call, route)


async def _not_found(call: Call) -> Answer:
    return reply_error(404, "page not found")


@lru_cache(maxsize=64)
def _parse_version(text: str) -> Version:
    return tuple(int(part or 0) for part in text.split("."))


@lru_cache(maxsize=64)
def _refuse_version(text: str) -> Reply | None:
    if len(text) > 32:
        return reply_error(400, "invalid API version in the path")
    version = _parse_version(text)
    if version < _OLDEST:
        message = (
            f"client version {text} is too old. Minimum supported API version is {MINIMUM_VERSION}, "
            "please upgrade your client to a newer version"
        )
        # Clients this old do not expect JSON.
        return Reply(400, message.encode() + b"\n", "text/plain; charset=utf-8")
    if version[:2] > _NEWEST:
        message = f"client version {text} is too new. Maximum supported API version is {MAXIMUM_VERSION}"
        return reply_error(400, message)
    return None
