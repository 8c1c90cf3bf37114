"""FROM: images that are here, else pulled with the credentials the client has for their registry."""

import asyncio
from typing import TYPE_CHECKING, Any

from wherry.buildkit.report import Report
from wherry.buildkit.sessions import Session
from wherry.errors import NotFound
from wherry.images import RegistryAuth
from wherry.images.image import Image
from wherry.spec.platform import Platform, preference
from wherry.spec.reference import Reference, parse_reference

if TYPE_CHECKING:
    from wherry.engine import Engine

_HUB = "registry-1.docker.io"


class SessionImages:
    """The builder's ImageSource, with a line of progress for each image."""

    def __init__(self, engine: "Engine", session: Session | None, report: Report) -> None:
        self._engine, self._session, self._report = engine, session, report

    async def image(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        images = self._engine.images
        if reference.startswith("sha256:"):
            # A result of another build.
            result: Image = images.resolve(reference)
            return result
        parsed = parse_reference(reference)
        with self._report.vertex(f"[internal] load metadata for {parsed.tagged()}") as vertex:
            if not pull:
                try:
                    found: Image = images.resolve(reference)
                except NotFound:
                    pass
                else:
                    if preference(platform, found.platform) is not None:
                        return found
            loop = asyncio.get_running_loop()
            auth = await registry_auth(self._session, parsed)

            def progress(message: dict[str, Any]) -> None:
                detail = message.get("progressDetail") or {}
                if message.get("id") and detail.get("total"):
                    what = f"{message['status']} {message['id']}"
                    # Called from any thread.
                    loop.call_soon_threadsafe(vertex.status, what, detail.get("current") or 0, detail["total"])

            pulled: Image = await images.pull(str(parsed.tagged()), platform, auth, progress)
            return pulled


async def registry_auth(session: Session | None, reference: Reference) -> RegistryAuth | None:
    """What the client has for the registry of `reference`."""
    if session is None:
        return None
    domain = reference.domain
    user, secret = await session.credentials(_HUB if domain == "docker.io" else domain)
    if not secret:
        return None
    if not user or user == "<token>":
        return RegistryAuth(identity_token=secret, server=domain)
    return RegistryAuth(username=user, password=secret, server=domain)
