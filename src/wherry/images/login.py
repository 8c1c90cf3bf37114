"""Signing in: whether a registry takes credentials, for POST /auth."""

from wherry.errors import Internal, InvalidArgument, Unavailable
from wherry.images.auth import RegistryAuth
from wherry.images.endpoints import RegistryConfig, find_endpoints
from wherry.images.registry import Registry
from wherry.spec.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN, is_domain


async def login(auth: RegistryAuth, config: RegistryConfig) -> str:
    """The identity token the registry gives in place of the password, "" where it gives none.

    Unauthenticated, PermissionDenied or Internal when it does not take the credentials or cannot be reached.
    """
    # A registry token is for one repository; it says nothing here.
    auth = auth._replace(registry_token="")
    failure = ""
    for endpoint in find_endpoints(_domain(auth.server), config):
        if endpoint.mirror:
            continue
        registry = Registry(endpoint, "", auth)
        try:
            return await registry.sign_in()
        except Unavailable as error:
            # Nobody there, before any credentials were sent.
            failure = error.message
        finally:
            await registry.close()
    raise Internal(failure, object=auth.server)


def _domain(server: str) -> str:
    """The registry an address means: with or without scheme and path, Docker Hub for ""."""
    scheme, found, rest = server.partition("://")
    if found and scheme not in ("http", "https"):
        raise InvalidArgument(f"unable to parse server address: {server!r} is not an http address", object=server)
    domain = (rest if found else server).partition("/")[0]
    if domain in ("", LEGACY_DOMAIN, "registry-1.docker.io"):
        return DEFAULT_DOMAIN
    if not is_domain(domain):
        raise InvalidArgument(f"unable to parse server address: {server!r} names no host", object=server)
    return domain
