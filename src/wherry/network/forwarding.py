"""Forwarding between the host's links: needed for containers, and not to be given to anyone else by accident."""

import json
import logging
import re
import socket
from collections.abc import Callable

from wherry.kernel import sysctl
from wherry.kernel.netlink import Netlink
from wherry.kernel.nftables import Nftables
from wherry.state import Put, Store

_log = logging.getLogger(__name__)
_SWITCHES = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_KEYS = {4: "network/forwarding", 6: "network/forwarding6"}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_DROPPING = re.compile(r"^\t\ttype filter hook forward priority [^;]+; policy drop;", re.MULTILINE)


def open_forwarding(host: Netlink, is_ours: Callable[[str], bool], store: Store, version: int = 4) -> tuple[str, ...]:
    """Turn forwarding of IPv4 or IPv6 on; the links between which the daemon's table then has to keep it off.

    Turning it on makes the host a router between all its links, which it was not before: so those that had addresses
    at that moment stay apart. Remembered until the next boot; nothing when forwarding was on already.
    """
    boot = sysctl.read("kernel/random/boot_id")
    switch = _SWITCHES[version]
    saved = store.get(_KEYS[version])
    if saved is not None:
        document = json.loads(saved)
        if document["boot"] == boot:
            if sysctl.read(switch) != "1":
                _turn_on(host, version)
            return tuple(document["links"])
    if sysctl.read(switch) == "1":
        return ()
    addressed = {address.ifindex for address in host.addresses(_FAMILIES[version])}
    links = [link.name for link in host.links() if link.ifindex in addressed and link.name != "lo"]
    links = [name for name in links if not is_ours(name)]
    store.write(Put(_KEYS[version], json.dumps({"boot": boot, "links": links}).encode()))
    _turn_on(host, version)
    return tuple(links)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6 and it is not turned off for the whole machine."""
    try:
        return sysctl.read("net/ipv6/conf/all/disable_ipv6") == "0"
    except FileNotFoundError:
        return False


def _turn_on(host: Netlink, version: int) -> None:
    if version == 6:
        # A router does not believe other routers: a host that has its default route from one would lose it.
        for link in host.links():
            try:
                if sysctl.read(f"net/ipv6/conf/{link.name}/accept_ra") == "1":
                    sysctl.write(f"net/ipv6/conf/{link.name}/accept_ra", "2")
            except FileNotFoundError:
                continue
    sysctl.write(_SWITCHES[version], "1")


def warn_of_firewalls(nft: Nftables, table: str) -> list[str]:
    """Log, and return, the other tables that drop what they do not know: accepting a packet in ours cannot help it."""
    found = []
    for block in nft.run("list chains").split("\ntable "):
        name = block.removeprefix("table ").split(" {", 1)[0].strip()
        if _DROPPING.search(block) and name != f"inet {table}" and name.split(" ")[0] in ("ip", "inet"):
            found.append(name)
            _log.warning(
                "the nftables table %r drops forwarded packets by default: containers may not reach the outside, "
                "nor be reached, until it lets the bridge through",
                name,
            )
    return found
