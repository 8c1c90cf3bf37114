"""What may be asked of an endpoint, before anything is made."""

import re
from collections.abc import Mapping
from ipaddress import ip_address

from wherry.errors import InvalidArgument
from wherry.network import sandbox
from wherry.network.endpoint import EndpointRequest
from wherry.network.network import Network

IFNAME = "com.docker.network.endpoint.ifname"
_OURS = "com.docker.network."
LOCAL_DRIVERS = ("bridge", "macvlan", "ipvlan", "overlay")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def check_request(request: EndpointRequest, network: Network) -> None:
    """InvalidArgument with docker's words for what a network cannot give."""
    wrong = []
    for version, text in ((4, request.ipv4), (6, request.ipv6)):
        if not text:
            continue
        try:
            address = ip_address(text)
        except ValueError:
            wrong.append(f"invalid IPv{version} address: {text}")
            continue
        if address.version != version or address.is_unspecified or address.is_multicast:
            wrong.append(f"invalid IPv{version} address: {text}")
            continue
        if network.built_in:
            wrong.append("user specified IP address is supported on user defined networks only")
        elif not network.own_subnets:
            wrong.append(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
            continue
        if not any(address in subnet.network for subnet in network.of_version(version)):
            wrong.append(f"no configured subnet or ip-range contain the IP address {text}")
    if wrong:
        wrong = list(dict.fromkeys(wrong))
        text = f"* {chr(10).join(wrong)}" if len(wrong) == 1 else "\n".join(f"* {line}" for line in wrong)
        text = wrong[0] if len(wrong) == 1 else text
        raise InvalidArgument(f"invalid config for network {network.name}: invalid endpoint settings:\n{text}")
    if network.driver in ("host", "null"):
        return
    mac = request.mac
    if mac is not None and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1):
        raise InvalidArgument(f"invalid MAC address: {mac}", object=mac)
    if network.driver in LOCAL_DRIVERS:
        check_options(request.options)


def check_options(options: Mapping[str, str]) -> None:
    """InvalidArgument for options of an endpoint that are not known, or cannot be."""
    for option in options:
        # Others' names are labels, kept and shown: docker's own network drivers know only theirs.
        if option.startswith(_OURS) and option not in (IFNAME, sandbox.SYSCTLS):
            raise InvalidArgument(
                f"unknown driver option {option} of an endpoint",
                object=option,
                hint=f"known: {IFNAME}, {sandbox.SYSCTLS}",
            )
    name = options.get(IFNAME, "")
    if name and (len(name.encode()) > 15 or "/" in name or name in (".", "..", "lo") or any(c.isspace() for c in name)):
        raise InvalidArgument(f"invalid interface name {name!r}", object=IFNAME)
    sandbox.parse_sysctls(options, name or "IFNAME")
