"""Who is called what, and by whom: sandboxes, the networks they are on, and the names they have there.

A name is found only on networks the asking sandbox is on. "web" is looked for on each of them, "web.shop" also as
"web" on the network "shop". A link is a name only its own sandbox knows, for a name on one network.
"""

from __future__ import annotations

import _socket

from wherry.dns.message import encode_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # (network's id, its name, IPv4, IPv6, names, links); addresses packed or empty.
    Membership = tuple[str, bytes, bytes, bytes, tuple[bytes, ...], dict[bytes, bytes]]


class Member:
    """A sandbox's place in one network."""

    __slots__ = ("ipv4", "ipv6", "links", "names", "network", "network_name")

    def __init__(self, record: dict[str, Any]) -> None:
        self.network: str = record["id"]
        self.network_name = _fold(record["network"])
        self.ipv4 = _socket.inet_aton(record["ipv4"]) if record["ipv4"] else b""
        self.ipv6 = _socket.inet_pton(_socket.AF_INET6, record["ipv6"]) if record["ipv6"] else b""
        self.names = tuple(dict.fromkeys(_fold(name) for name in record["names"]))
        self.links = {_fold(alias): _fold(name) for alias, name in record["links"].items()}


class Network:
    """The names of one network: name → sandbox → member. Addresses lead to whoever has them."""

    __slots__ = ("addresses", "names", "sandboxes")

    def __init__(self) -> None:
        self.names: dict[bytes, dict[str, Member]] = {}
        self.addresses: dict[bytes, Member] = {}
        self.sandboxes: set[str] = set()


class Names:
    """Every network by its id; `members` is asked for by sandbox."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._members: dict[str, tuple[Member, ...]] = {}

    def put(self, sandbox: str, members: tuple[Member, ...]) -> set[str]:
        """Make these its places, and no others; the sandboxes whose answers may be others now."""
        affected = self.drop(sandbox)
        if members:
            self._members[sandbox] = members
        for member in members:
            network = self._networks.get(member.network)
            if network is None:
                network = self._networks[member.network] = Network()
            network.sandboxes.add(sandbox)
            for name in member.names:
                network.names.setdefault(name, {})[sandbox] = member
            for address in (member.ipv4, member.ipv6):
                if address and member.names:
                    network.addresses[address] = member
            affected |= network.sandboxes
        return affected

    def drop(self, sandbox: str) -> set[str]:
        """Forget it; the sandboxes whose answers may be others now."""
        affected = {sandbox}
        for member in self._members.pop(sandbox, ()):
            network = self._networks[member.network]
            affected |= network.sandboxes
            network.sandboxes.discard(sandbox)
            for name in member.names:
                known = network.names[name]
                del known[sandbox]
                if not known:
                    del network.names[name]
            for address in (member.ipv4, member.ipv6):
                if network.addresses.get(address) is member:
                    del network.addresses[address]
            if not network.sandboxes:
                del self._networks[member.network]
        return affected

    def find(self, sandbox: str, name: bytes) -> list[Member]:
        """Everyone `sandbox` calls `name`: on the first of its networks where anyone is called so."""
        asking = self._members.get(sandbox, ())
        for short, network in _readings(name):
            for linked in (True, False):
                for member in asking:
                    if network and member.network_name != network:
                        continue
                    target = member.links.get(short) if linked else short
                    found = target is not None and self._networks[member.network].names.get(target)
                    if found:
                        return list(found.values())
        return []

    def name_of(self, sandbox: str, address: bytes) -> bytes | None:
        """The first name of who has an address on a network of `sandbox`, with the network's, in labels."""
        for member in self._members.get(sandbox, ()):
            found = self._networks[member.network].addresses.get(address)
            if found is not None:
                try:
                    return encode_name(found.names[0] + b"." + found.network_name)
                except ValueError:
                    return None  # a network may be called what no host can be
        return None


def _readings(name: bytes) -> list[tuple[bytes, bytes]]:
    """(name, network): the name as it is, then with what stands behind each of its dots as the network's."""
    found, at = [(name, b"")], name.rfind(b".")
    while at > 0:
        found.append((name[:at], name[at + 1 :]))
        at = name.rfind(b".", 0, at)
    return found


def _fold(name: str) -> bytes:
    return name.encode(errors="replace").lower()
