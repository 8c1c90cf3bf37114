"""A client of one repository in one registry (distribution-spec), over HTTP(S).

Credentials go to the registry's own origin and to the token server it names, never along a redirect to another host,
never over plain HTTP when the registry itself is reached over TLS.
"""

import asyncio
import hashlib
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp

from wherry.errors import Internal, NotFound, PermissionDenied, Unauthenticated, Unavailable, WherryError
from wherry.images.auth import Challenge, RegistryAuth, parse_challenges
from wherry.images.endpoint import Endpoint
from wherry.images.endpoints import origin, proxy_for
from wherry.spec.digest import Digest, sha256
from wherry.spec.oci_image import DOCUMENT_MAX, INDEX_TYPES, MANIFEST_TYPES
from wherry.spec.reference import Reference

_ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
_REDIRECTS_MAX = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
_WAITS_MAX = 5
_WAIT_SECONDS_MAX = 60.0
_USER_AGENT = "wherry"
_CLIENT_ID = "docker"


class Registry:
    """One repository at one endpoint, or "" for none, to sign in only. `connect`, use, `close`."""

    def __init__(self, endpoint: Endpoint, repository: str, auth: RegistryAuth | None) -> None:
        self.endpoint = endpoint
        self._repository = repository
        self._scopes = [f"repository:{repository}:pull"] if repository else []
        # A mirror is not whom the credentials are for.
        self._auth = RegistryAuth() if endpoint.mirror else auth or RegistryAuth()
        self._base = f"{endpoint.root}/{repository}"
        self._identity_token = self._auth.identity_token
        self._authorization: str | None = f"Bearer {self._auth.registry_token}" if self._auth.registry_token else None
        self._session = aiohttp.ClientSession(
            timeout=_TIMEOUT,
            auto_decompress=False,
            read_bufsize=1 << 20,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._authenticating = asyncio.Lock()

    async def close(self) -> None:
        await self._session.close()

    async def ping(self) -> None:
        """Whether a registry answers here at all: Unavailable when none does."""
        url = f"{self.endpoint.root}/"
        async with self._send("GET", url, {}) as response:
            if response.status == 404 or response.status >= 500:
                raise Unavailable(f'Get "{url}": unexpected status: {response.status} {response.reason}', object=url)

    async def sign_in(self) -> str:
        """The identity token the registry gives for these credentials, "" where it gives none.

        Unauthenticated and PermissionDenied are its token server's words, Internal everything else that says no.
        Unavailable: no registry was reached, and the credentials went nowhere.
        """
        url = f"{self.endpoint.root}/"
        async with self._send("GET", url, {}) as response:
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        try:
            await self._authenticate(challenges, None, url)
        except RegistryRefusal as error:
            kind = {401: Unauthenticated, 403: PermissionDenied}.get(error.status, Internal)
            raise kind(f'Get "{url}": {error.message}', object=url) from None
        except Unavailable as error:
            raise Internal(error.message, object=url) from None
        try:
            async with self._send("GET", url, {}, self._authorization) as response:
                status = f"{response.status} {response.reason}"
        except Unavailable as error:
            raise Internal(error.message, object=url) from None
        if not status.startswith("200 "):
            raise Internal(f"login attempt to {url} failed with status: {status}", object=url)
        return self._identity_token

    async def manifest(self, reference: str) -> tuple[bytes, str, Digest]:
        """A manifest by tag or digest: its bytes, media type and digest, which is computed here."""
        async with self._request(f"{self._base}/manifests/{reference}", {"Accept": _ACCEPT}) as response:
            data = await _read(response, DOCUMENT_MAX, "manifest")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            announced = response.headers.get("Docker-Content-Digest")
        for expected in (reference, announced):
            algorithm, colon, encoded = (expected or "").partition(":")
            if colon and (algorithm not in ("sha256", "sha512") or hashlib.new(algorithm, data).hexdigest() != encoded):
                raise Internal(f"manifest verification failed for digest {expected}", object=expected)
        generic = media_type in ("application/json", "application/octet-stream", "text/plain")
        return data, "" if generic else media_type, sha256(data)

    async def tags(self) -> list[str]:
        """Every tag of the repository."""
        found: list[str] = []
        url: str | None = f"{self._base}/tags/list"
        for _ in range(1000):
            if url is None:
                break
            async with self._request(url, {}) as response:
                page = _parse(await _read(response, DOCUMENT_MAX, "list of tags"))
                following = _next_page(response)
            found += [tag for tag in page.get("tags") or [] if isinstance(tag, str)]
            url = following
            if url and origin(url) != origin(self._base):
                raise Internal(f"{self.endpoint.address} leads its list of tags to another host", object=url)
        return found

    @asynccontextmanager
    async def blob(self, digest: Digest, offset: int = 0) -> AsyncIterator[tuple[aiohttp.ClientResponse, int]]:
        """A blob's bytes from `offset`, and where they really begin: 0 when the registry knows no ranges."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._request(f"{self._base}/blobs/{digest}", headers) as response:
            begins = 0
            if response.status == 206:
                text = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
                begins = int(text) if text.isdigit() else -1
                if begins != offset:
                    raise Unavailable(f"{self.endpoint.address} sent another range than asked for", object=digest)
            yield response, begins

    # -- requests ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _request(
        self,
        url: str,
        headers: Mapping[str, str],
        method: str = "GET",
        body: Callable[[], AsyncIterator[bytes]] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request that authenticates when asked to; errors are raised as the registry's own words.

        `body` gives the pieces of one, as often as it has to be sent.
        """
        for _ in range(_WAITS_MAX):
            async with self._try(url, headers, method, body) as response:
                delay = retry_after(response)
                if delay is None:
                    await _check(response, url)
                    yield response
                    return
                if delay > _WAIT_SECONDS_MAX:
                    limited = "the registry limits the rate of requests: try again in"
                    raise Unavailable(f'{method.title()} "{url}": {limited} {delay:.0f} seconds', object=url)
            await asyncio.sleep(delay)
        raise Unavailable(f'{method.title()} "{url}": the registry limits the rate of requests', object=url)

    @asynccontextmanager
    async def _try(
        self,
        url: str,
        headers: Mapping[str, str],
        method: str,
        body: Callable[[], AsyncIterator[bytes]] | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One attempt of a request, and another with credentials when they are asked for."""
        # An upload may go to another host: that one gets no credentials.
        foreign = origin(url) != origin(self.endpoint.address)
        used = None if foreign else self._authorization
        async with self._send(method, url, headers, used, body) as response:
            if response.status != 401 or foreign:
                yield response
                return
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            refused = await _error(response, url)
        if not await self._authenticate(challenges, used, url):
            raise refused
        async with self._send(method, url, headers, self._authorization, body) as response:
            yield response

    @asynccontextmanager
    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str | None = None, data: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request and the redirects it leads to. `data`: a form, or a function that makes the body."""
        home = origin(url)
        for _ in range(_REDIRECTS_MAX):
            own = {"Authorization": authorization} if authorization and origin(url) == home else {}
            tls = self.endpoint.tls if origin(url)[1] == origin(self.endpoint.address)[1] else True
            try:
                response = await self._session.request(
                    method,
                    url,
                    headers={**headers, **own, **self._extra(url)},
                    data=data() if callable(data) else data,
                    ssl=tls,
                    allow_redirects=False,
                    proxy=proxy_for(url),
                )
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise Unavailable(f'{method.title()} "{url}": {_reason(error)}', object=url) from None
            try:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location:
                    yield response
                    return
            finally:
                response.release()
            url = self._redirected(url, location)
            if isinstance(data, Mapping) and origin(url) != home:
                raise PermissionDenied(f"the token server {home[1]} sends credentials on to another host", object=url)
        raise Unavailable(f'{method.title()} "{url}": stopped after {_REDIRECTS_MAX} redirects', object=url)

    def _extra(self, url: str) -> dict[str, str]:
        """Headers the administrator wants sent to this host, and to no other."""
        return dict(self.endpoint.headers) if origin(url) == origin(self.endpoint.address) else {}

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unavailable(f'Get "{url}": redirected to an unusable address', object=location)
        if parts.scheme == "http" and url.startswith("https:") and self.endpoint.tls is not False:
            raise PermissionDenied(f'Get "{url}": redirected from TLS to plain HTTP', object=target)
        # Credentials in an address would be sent as ours.
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    # -- authentication ---------------------------------------------------------------------------------------------

    async def _authenticate(self, challenges: list[Challenge], used: str | None, url: str) -> bool:
        """Get what the registry asks for; False when there is nothing (more) to offer."""
        async with self._authenticating:
            if self._authorization != used:
                return True  # another request of this pull has just done it
            for challenge in challenges:
                if challenge.scheme == "bearer" and not self._auth.registry_token:
                    token = f"Bearer {await self._token(challenge.parameters, url)}"
                    changed, self._authorization = token != used, token
                    return changed
                if challenge.scheme == "basic":
                    if self._auth.basic is None:
                        raise Internal(f'Get "{url}": no basic auth credentials', object=url)
                    changed, self._authorization = self._auth.basic != used, self._auth.basic
                    return changed
            return False

    async def _token(self, parameters: Mapping[str, str], url: str) -> str:
        realm = parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Internal(f'Get "{url}": the registry names no token server', object=realm)
        if parts.scheme == "http" and self.endpoint.address.startswith("https:") and self.endpoint.tls is not False:
            raise PermissionDenied(f"the registry's token server {realm} is not reached over TLS", object=realm)
        # The scope is what this client wants, not what the registry suggests it should ask for.
        wanted = {"service": parameters.get("service", "")}
        if self._scopes:
            wanted["scope"] = " ".join(self._scopes)
        else:
            # Signing in: what is wanted is a token that stands for the password from now on.
            wanted |= {"offline_token": "true", "client_id": _CLIENT_ID}
        if self._auth.identity_token:
            form = wanted | {
                "grant_type": "refresh_token",
                "refresh_token": self._auth.identity_token,
                "client_id": _CLIENT_ID,
            }
            form.pop("offline_token", None)
            answer = await self._ask_token("POST", realm, form, None)
        else:
            account = {"account": self._auth.username} if self._auth.username else {}
            several = {"scope": self._scopes} if self._scopes else {}
            query = urlencode(wanted | account | several, doseq=True)
            address = parts._replace(query=f"{parts.query}&{query}".lstrip("&"), fragment="").geturl()
            answer = await self._ask_token("GET", address, None, self._auth.basic)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or not token.isprintable():
            raise Internal(f'Get "{url}": authorization server did not include a token in the response', object=realm)
        renewed = answer.get("refresh_token")
        if isinstance(renewed, str) and renewed:
            self._identity_token = renewed
        return token

    async def _ask_token(
        self, method: str, url: str, form: Mapping[str, str] | None, authorization: str | None
    ) -> dict[str, Any]:
        async with self._send(method, url, {}, authorization, form) as response:
            await _check(response, url)
            return _parse(await _read(response, 1 << 20, "token"))


def retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds for which an overloaded registry asks to be left alone (RFC 9110 section 10.2.3); None: it does not."""
    said = response.headers.get("Retry-After", "").strip()
    if response.status not in (429, 503) or not said:
        return None
    if said.isdigit():
        return float(said[:9])
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _next_page(response: aiohttp.ClientResponse) -> str | None:
    link = response.links.get("next")
    address = link.get("url") if link is not None else None
    return str(address) if address else None


async def _read(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    """A body that is to be held in memory, refused when it is longer than `limit` bytes whatever it says of itself."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in response.content.iter_any():
            size += len(part)
            if size > limit:
                raise Internal(
                    f"{what} of {response.url.host} is larger than {limit >> 20} MiB", object=str(response.url)
                )
            parts.append(part)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f'Get "{response.url}": {_reason(error)}', object=str(response.url)) from None
    return b"".join(parts)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Internal("the registry's answer is not a JSON object")
    return value


async def _check(response: aiohttp.ClientResponse, url: str) -> None:
    if response.status >= 300:
        raise await _error(response, url)


class RegistryRefusal(Internal):
    """What a registry answered instead of what was asked for; `code` is distribution-spec's ("DENIED")."""

    def __init__(self, code: str, text: str, status: int, url: str) -> None:
        super().__init__(text, object=url)
        self.code = code
        self.status = status


async def _error(response: aiohttp.ClientResponse, url: str) -> WherryError:
    """The error a response means, in the words of docker: the code in lower case and the registry's message."""
    data = await _read(response, 1 << 20, "error")
    for challenge in parse_challenges(response.headers.getall("WWW-Authenticate", [])):
        # RFC 6750 section 3.1: a token that is good for something else. Hubs say so of repositories that do not exist.
        if challenge.scheme == "bearer" and challenge.parameters.get("error") == "insufficient_scope":
            reason = challenge.parameters.get("error_description") or "requested access to the resource is denied"
            return RegistryRefusal("DENIED", f"denied: {reason}"[:1000], response.status, url)
    try:
        document = _parse(data)
        if response.status == 401 and isinstance(document.get("details"), str):
            # Docker Hub's token server.
            return RegistryRefusal("UNAUTHORIZED", f"unauthorized: {document['details']}"[:1000], 401, url)
        errors = document.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else {}
        code, message = str(first["code"]), str(first.get("message") or "")
    except (WherryError, KeyError, TypeError, AttributeError):
        default = {401: ("UNAUTHORIZED", "authentication required"), 404: ("NAME_UNKNOWN", "404 page not found")}
        if response.status not in default:
            text = f'Get "{url}": unexpected status code: {response.status} {response.reason}'
            if response.status >= 500 or response.status in (408, 429):
                return Unavailable(text, object=url)
            return RegistryRefusal("UNKNOWN", text, response.status, url)
        code, message = default[response.status]
    text = f"{code.lower().replace('_', ' ')}: {message}"[:1000]
    if response.status >= 500 or response.status in (408, 429):
        return Unavailable(text, object=url)
    return RegistryRefusal(code, text, response.status, url)


def translate_push(error: WherryError, reference: Reference) -> WherryError:
    """A refusal as docker tells it of what was to be pushed."""
    if isinstance(error, RegistryRefusal) and error.code == "DENIED":
        return PermissionDenied(error.message, object=reference.familiar)
    if isinstance(error, RegistryRefusal) and error.code == "UNAUTHORIZED":
        return Unauthenticated(error.message, object=reference.familiar)
    return error


def translate(error: WherryError, reference: Reference) -> WherryError:
    """A refusal as docker tells it of the image that was asked for."""
    if not isinstance(error, RegistryRefusal):
        return error
    name, whole, text = reference.familiar_name, reference.familiar, error.message
    if error.code == "DENIED":
        hint = "repository does not exist or may require 'docker login'"
        return NotFound(f"pull access denied for {name}, {hint}: {text}", object=whole)
    if error.code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {whole} not found: {text}", object=whole)
    if error.code == "NAME_UNKNOWN":
        return NotFound(f"repository {name} not found: {text}", object=whole)
    return error


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorSSLError) and isinstance(error.os_error, ssl.SSLError):
        if error.os_error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return "http: server gave HTTP response to HTTPS client"
        return f"tls: {error.os_error.reason or error.os_error}".lower()
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = os.strerror(error.os_error.errno).lower() if error.os_error.errno else str(error.os_error)
        return f"dial tcp {error.host}:{error.port}: connect: {reason}"
    if isinstance(error, TimeoutError):
        return "request timed out"
    return str(error) or type(error).__name__
