"""What a client lends to its builds: the services behind a connection it opened with POST /session."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

from wherry.buildkit.grpc import NOT_FOUND, PERMISSION_DENIED, UNIMPLEMENTED, Call, RpcError, calling, unary
from wherry.buildkit.http2 import Channel, Wire
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.errors import InvalidArgument, NotFound

_SECRET_MAX = 500 << 10
_SECRETS = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_SESSIONS_MAX = 1000


class Session:
    """One client. `methods` are the calls it answers; `shared_key` names the directory it builds from."""

    def __init__(self, id: str, shared_key: str, methods: frozenset[str], channel: Channel) -> None:
        self.id, self.shared_key, self.methods, self.channel = id, shared_key, methods, channel

    def offers(self, path: str) -> bool:
        return path in self.methods

    def calling(
        self, path: str, metadata: Mapping[str, Sequence[str]] | None = None
    ) -> AbstractAsyncContextManager[Call]:
        """A call with streams; a context manager that gives a Call."""
        pairs = [pair for name, values in (metadata or {}).items() for pair in encode_header(name, values)]
        return calling(self.channel, path, pairs)

    async def secret(self, id: str) -> bytes | None:
        """SecretSource."""
        if not self.offers(_SECRETS):
            return None
        try:
            answer = await unary(self.channel, _SECRETS, pb.GetSecretRequest(id=id), pb.GetSecretResponse)
        except RpcError as error:
            if error.code in (NOT_FOUND, UNIMPLEMENTED) or "not found" in str(error):
                return None
            raise
        if len(answer.data) > _SECRET_MAX:
            raise InvalidArgument(f"secret {id} is larger than {_SECRET_MAX >> 10} KiB", object=id)
        return bytes(answer.data)

    async def credentials(self, host: str) -> tuple[str, str]:
        """The user name and password for a registry, both "" when there are none; no name: the other is a token."""
        if not self.offers(_CREDENTIALS):
            return "", ""
        try:
            answer = await unary(self.channel, _CREDENTIALS, pb.CredentialsRequest(host=host), pb.CredentialsResponse)
        except RpcError as error:
            if error.code in (NOT_FOUND, UNIMPLEMENTED, PERMISSION_DENIED):
                return "", ""
            raise
        return answer.username, answer.secret


class Sessions:
    """The sessions of one daemon, by id. The loop's thread."""

    def __init__(self) -> None:
        self._known: dict[str, Session] = {}
        self._waiting: dict[str, asyncio.Future[Session]] = {}

    def open(self, wire: Wire, headers: Mapping[str, Sequence[str]], on_lost: Callable[[], object]) -> Channel:
        """A client's connection, of which we are the calling side from now on."""
        id = first(headers, "x-docker-expose-session-uuid")
        if not id or len(id) > 128:
            raise InvalidArgument("a session has an id of at most 128 characters")
        if id in self._known:
            raise InvalidArgument(f"session {id} is open already", object=id)
        if len(self._known) >= _SESSIONS_MAX:
            raise InvalidArgument(f"there are {_SESSIONS_MAX} sessions already")

        def lost() -> None:
            if self._known.get(id) is session:
                del self._known[id]
            on_lost()

        channel = Channel(wire, client=True, on_lost=lost)
        methods = frozenset(headers.get("x-docker-expose-session-grpc-method", ()))
        session = Session(id, first(headers, "x-docker-expose-session-sharedkey"), methods, channel)
        self._known[id] = session
        waiting = self._waiting.pop(id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(session)
        return channel

    async def get(self, id: str, patience: float = 5.0) -> Session:
        """The session, which may be about to come."""
        known = self._known.get(id)
        if known is not None:
            return known
        waiting = self._waiting.get(id)
        if waiting is None:
            waiting = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), patience)
        except TimeoutError:
            raise NotFound(f"no active session for {id}", object=id, hint="the client may have gone") from None
        finally:
            if self._waiting.get(id) is waiting and not waiting.done():
                del self._waiting[id]

    def close(self) -> None:
        for session in list(self._known.values()):
            session.channel.close()


def first(headers: Mapping[str, Sequence[str]], name: str) -> str:
    values = headers.get(name)
    return values[0] if values else ""


def encode_header(name: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """A list of values as headers; those that are not plain ASCII are escaped, and that is said."""
    if all(all(" " <= letter <= "~" for letter in value) for value in values):
        return [(name, value) for value in values]
    return [*((name, quote(value, safe="")) for value in values), (f"{name}-encoded", "1")]
