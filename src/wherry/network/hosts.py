"""A container's /etc/hosts and /etc/hostname."""

from collections.abc import Iterable
from ipaddress import ip_address

from wherry.errors import InvalidArgument

_LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
HOST_GATEWAY = "host-gateway"


def render(
    *,
    hostname: str = "",
    domainname: str = "",
    addresses: Iterable[str] = (),
    extra: Iterable[str] = (),
    gateway: str = "",
    host: str | None = None,
) -> str:
    """The text of /etc/hosts.

    `addresses` are the container's own, a line each. `extra` are --add-host's "name:address"; the address
    `host-gateway` stands for `gateway`. `host`, the host's own file, replaces the usual lines under --network host.
    """
    lines = [f"{at}\t{name}\n" for name, at in (parse_extra(entry, gateway) for entry in extra)]
    if hostname:
        full = f"{hostname}.{domainname}" if domainname else hostname
        short = full.split(".", 1)[0]
        lines += [f"{address}\t{full}" + (f" {short}\n" if short != full else "\n") for address in addresses]
    base = _LOCAL if host is None else host if host.endswith("\n") or not host else host + "\n"
    return base + "".join(lines)


def parse_extra(entry: str, gateway: str = "") -> tuple[str, str]:
    """(name, address) of "name:address" or "name=address"; InvalidArgument with docker's words."""
    cut = min((at for at in (entry.find(":"), entry.find("=")) if at >= 0), default=-1)
    name, address = entry[:cut], entry[cut + 1 :]
    if cut <= 0 or not address or any(c.isspace() for c in entry):
        raise InvalidArgument(f'bad format for add-host: "{entry}"', object=entry, hint="name:address")
    if address == HOST_GATEWAY:
        if not gateway:
            raise InvalidArgument(
                "unable to derive the IP value for host-gateway", object=entry, hint="the container's network has none"
            )
        return name, gateway
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        ip_address(address)
    except ValueError:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"', object=entry) from None
    return name, address


def render_hostname(hostname: str) -> str:
    """The text of /etc/hostname."""
    return hostname + "\n"
