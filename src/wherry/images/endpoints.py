"""Where a registry is reached: addresses, mirrors, which may be plain HTTP, and whom TLS trusts there."""

import ipaddress
import ssl
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument
from wherry.images.endpoint import Endpoint
from wherry.images.hosts import read_hosts
from wherry.spec.reference import DEFAULT_DOMAIN

_HUB = "registry-1.docker.io"


@dataclass(slots=True)
class RegistryConfig:
    """The daemon's settings for registries. They may change while it runs: what begins later goes by the new ones.

    `insecure`: hosts ("registry:5000") and networks ("10.0.0.0/8") where TLS is not verified and plain HTTP will do;
    localhost and 127.0.0.0/8 always are. `mirrors`: base addresses tried before Docker Hub. `certificates`:
    directories with one subdirectory per registry (`<host>/ca.crt`, `client.cert` and `client.key`, or `hosts.toml`,
    which says all there is to say of a registry: see wherry.images.hosts). `downloads`,
    `uploads`: blobs moved at once by one pull or push; `attempts`: how often one is tried.
    """

    insecure: Sequence[str] = ()
    mirrors: Sequence[str] = ()
    certificates: Sequence[Path] = (Path("/etc/wherry/certs.d"), Path("/etc/docker/certs.d"))
    downloads: int = 3
    uploads: int = 5
    attempts: int = 5


def find_endpoints(domain: str, config: RegistryConfig) -> list[Endpoint]:
    """The addresses of a registry, in the order they are to be tried."""
    configured = read_hosts(domain, f"https://{_HUB if domain == DEFAULT_DOMAIN else domain}", config.certificates)
    if configured is not None:
        return configured
    if domain == DEFAULT_DOMAIN:
        mirrors = [_mirror(address, config) for address in config.mirrors]
        return [*mirrors, Endpoint(f"https://{_HUB}", _context(_HUB, config))]
    if is_insecure(domain, config):
        # Docker's order: TLS without verification, then none.
        return [Endpoint(f"https://{domain}", False), Endpoint(f"http://{domain}", False)]
    return [Endpoint(f"https://{domain}", _context(domain, config))]


def is_insecure(domain: str, config: RegistryConfig) -> bool:
    host = (urlsplit(f"//{domain}").hostname or "").rstrip(".")
    if host == "localhost" or domain in config.insecure or host in config.insecure:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Names are not looked up: what a name means is the name server's word, not the administrator's.
        return False
    return address.is_loopback or any(address in network for network in _networks(config.insecure))


def proxy_for(url: str) -> str | None:
    """The proxy the daemon's environment names for an address (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are bound to."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise InvalidArgument(f"{url!r} is not an address", object=url) from None
    return parts.scheme, (parts.hostname or "").lower(), port


def _mirror(address: str, config: RegistryConfig) -> Endpoint:
    scheme, _, rest = address.partition("://")
    domain = rest.split("/", 1)[0]
    if scheme not in ("http", "https") or not domain:
        raise InvalidArgument(f"invalid mirror {address!r}", object=address, hint="expected http://... or https://...")
    tls: ssl.SSLContext | bool = False if is_insecure(domain, config) else _context(domain, config)
    return Endpoint(address.rstrip("/"), tls, mirror=True)


def _networks(entries: Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for entry in entries:
        try:
            found.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            continue  # a host name
    return found


def _context(domain: str, config: RegistryConfig) -> ssl.SSLContext | bool:
    context: ssl.SSLContext | None = None
    for directory in config.certificates:
        # A domain is host[:port]: it cannot lead out of the directory, but may be absent.
        own = directory / domain
        if not own.is_dir():
            continue
        context = context or ssl.create_default_context()
        for authority in sorted(own.glob("*.crt")):
            context.load_verify_locations(authority)
        for certificate in sorted(own.glob("*.cert")):
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context or True
