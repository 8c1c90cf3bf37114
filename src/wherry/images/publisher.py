"""The writing half of a registry's client (distribution-spec, "Push")."""

from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import quote, urljoin, urlsplit

from wherry.errors import Unavailable
from wherry.images.auth import RegistryAuth
from wherry.images.endpoint import Endpoint
from wherry.images.endpoints import origin
from wherry.images.registry import Registry, RegistryRefusal
from wherry.spec.digest import Digest, sha256

Pieces = Callable[[], AsyncIterator[bytes]]


class Publisher(Registry):
    """One repository that is pushed to. `sources`: further repositories, to mount blobs from."""

    def __init__(
        self, endpoint: Endpoint, repository: str, auth: RegistryAuth | None, sources: Sequence[str] = ()
    ) -> None:
        super().__init__(endpoint, repository, auth)
        self._scopes = [f"repository:{repository}:pull,push", *(f"repository:{name}:pull" for name in sources)]

    async def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has it."""
        try:
            async with self._request(f"{self._base}/blobs/{digest}", {}, "HEAD"):
                return True
        except RegistryRefusal as refusal:
            if refusal.status in (403, 404):
                return False  # an answer to HEAD has no words: if it may not be written to, the upload tells why
            raise

    async def begin_upload(self, mount: tuple[Digest, str] | None = None) -> str | None:
        """Where to upload to; None when the blob could be mounted instead."""
        query = f"?mount={quote(mount[0], safe='')}&from={quote(mount[1], safe='')}" if mount else ""
        url = f"{self._base}/blobs/uploads/{query}"
        async with self._request(url, {"Content-Length": "0"}, "POST") as response:
            if response.status == 201:
                return None
            return self._located(url, response.headers.get("Location"))

    async def send_part(self, location: str, start: int, end: int, pieces: Pieces) -> str:
        """Send the bytes from `start` until before `end`; where the upload goes on."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
        if start:
            headers["Content-Range"] = f"{start}-{end - 1}"
        async with self._request(location, headers, "PATCH", pieces) as response:
            return self._located(location, response.headers.get("Location"))

    async def upload_status(self, location: str) -> tuple[str | None, int]:
        """Where a broken-off upload goes on and from which byte; (None, 0) when it has to begin anew."""
        try:
            async with self._request(location, {}) as response:
                first, _, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
                known = response.status == 204 and first == "0" and last.isdigit()
                # "0-0" is said of an empty upload, and of one of a single byte: which is sent again then.
                size = int(last) + 1 if known and last != "0" else 0
                return (self._located(location, response.headers.get("Location")), size) if size else (None, 0)
        except RegistryRefusal as refusal:
            if refusal.status == 409:  # the registry has not noticed yet that the last connection is gone
                raise Unavailable(refusal.message, object=location) from None
            return None, 0

    async def finish_upload(self, location: str, digest: Digest) -> None:
        """Close an upload to which everything was sent."""
        separator = "&" if urlsplit(location).query else "?"
        url = f"{location}{separator}digest={quote(digest, safe='')}"
        async with self._request(url, {"Content-Length": "0"}, "PUT"):
            pass

    async def cancel_upload(self, location: str) -> None:
        """Give an upload up; that it cannot be is no error."""
        try:
            async with self._request(location, {}, "DELETE"):
                pass
        except (RegistryRefusal, Unavailable):
            pass

    async def put_manifest(self, reference: str, data: bytes, media_type: str) -> Digest:
        """Its digest, computed here."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}

        async def body() -> AsyncIterator[bytes]:
            yield data

        async with self._request(f"{self._base}/manifests/{reference}", headers, "PUT", body):
            return sha256(data)

    def _located(self, url: str, location: str | None) -> str:
        """The next address of an upload. It may be on another host, which then gets no credentials."""
        if not location:
            raise Unavailable(f'Post "{url}": the registry does not say where to upload to', object=url)
        target = urljoin(url, location)
        # A registry behind a proxy that ends TLS may not know its own scheme.
        if (
            origin(target)[1] == origin(self._base)[1]
            and target.startswith("http:")
            and self._base.startswith("https:")
        ):
            target = "https:" + target.removeprefix("http:")
        return self._redirected(url, target)
