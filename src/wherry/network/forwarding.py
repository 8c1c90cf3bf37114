"""Forwarding between the host's links: needed for containers, and not to be given to anyone else by accident."""

import json
import logging
import re

from wherry.kernel import sysctl
from wherry.kernel.netlink import Netlink
from wherry.kernel.nftables import Nftables
from wherry.state import Put, Store

_log = logging.getLogger(__name__)
_SWITCH = "net/ipv4/ip_forward"
_KEY = "network/forwarding"
_DROPPING = re.compile(r"^\t\ttype filter hook forward priority [^;]+; policy drop;", re.MULTILINE)


def open_forwarding(host: Netlink, bridge: str, store: Store) -> tuple[str, ...]:
    """Turn IPv4 forwarding on; the links between which the daemon's table then has to keep it off.

    Turning it on makes the host a router between all its links, which it was not before: so those that had addresses
    at that moment stay apart. Remembered until the next boot; nothing when forwarding was on already.
    """
    boot = sysctl.read("kernel/random/boot_id")
    saved = store.get(_KEY)
    if saved is not None:
        document = json.loads(saved)
        if document["boot"] == boot:
            if sysctl.read(_SWITCH) != "1":
                sysctl.write(_SWITCH, "1")
            return tuple(document["links"])
    if sysctl.read(_SWITCH) == "1":
        return ()
    addressed = {address.ifindex for address in host.addresses()}
    links = [link.name for link in host.links() if link.ifindex in addressed and link.name not in ("lo", bridge)]
    store.write(Put(_KEY, json.dumps({"boot": boot, "links": links}).encode()))
    sysctl.write(_SWITCH, "1")
    return tuple(links)


def warn_of_firewalls(nft: Nftables, table: str) -> list[str]:
    """Log, and return, the other tables that drop what they do not know: accepting a packet in ours cannot help it."""
    found = []
    for block in nft.run("list chains").split("\ntable "):
        name = block.removeprefix("table ").split(" {", 1)[0].strip()
        if _DROPPING.search(block) and name != f"ip {table}" and name.split(" ")[0] in ("ip", "inet"):
            found.append(name)
            _log.warning(
                "the nftables table %r drops forwarded packets by default: containers may not reach the outside, "
                "nor be reached, until it lets the bridge through",
                name,
            )
    return found
