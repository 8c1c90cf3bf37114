"""What every handler works with: the store, who may do what, who is told, and limits."""

from dataclasses import dataclass, field

from aiohttp import web

from wherry.registry.access import Access, Identity
from wherry.registry.metrics import Metrics
from wherry.registry.proxy import Proxy
from wherry.registry.quota import Quotas
from wherry.registry.store import Repositories
from wherry.registry.webhooks import Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One registry. `proxy`: it is a cache of another one, and takes no pushes."""

    repositories: Repositories
    access: Access
    metrics: Metrics
    webhooks: Webhooks
    quotas: Quotas = field(default_factory=Quotas)
    proxy: Proxy | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One request for a repository: whose it is, and the last part of the path."""

    service: Service
    request: web.Request
    identity: Identity
    name: str
    reference: str

    def url(self, kind: str, reference: str) -> str:
        """A path of this repository, as Location headers and events give it."""
        return f"/v2/{self.name}/{kind}/{reference}"

    def tell(self, action: str, media_type: str, digest: str, size: int, tag: str = "") -> None:
        """Send an event."""
        kind = "manifests" if "manifest" in media_type or "index" in media_type else "blobs"
        target = {"mediaType": media_type, "digest": digest, "size": size, "repository": self.name}
        if tag:
            target["tag"] = tag
        request = self.request
        self.service.webhooks.tell(
            action,
            {**target, "url": f"{request.scheme}://{request.host}{self.url(kind, digest)}"},
            user=self.identity.user,
            address=request.remote or "",
            method=request.method,
            host=request.host,
        )
