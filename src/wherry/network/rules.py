"""The nftables table of one daemon, as text.

Everything is said once, by a fixed set of rules; what changes with networks and containers are elements of maps and,
for each network, a few short chains. So a packet costs the same with one published port or ten thousand, with one
network or a hundred, and publishing a port, or a range of 60,000, costs one element.

    ports4, ports6             proto . port            → container . port     for bindings to every address
    ports4_at, ports6_at       address . proto . port  → container . port     for bindings to one address
    spans4 ... spans6_at       the same for ranges whose ports are the container's too: → container
    homes4, homes6             a network's subnet → its `guard` chain
    out4, out6                 a network's subnet → its `out` chain
    leaving, entering          a network's device → its `leave` or `enter` chain
    open4, open6               address . proto . port of containers that are reached without translation

What the rules do:
- a packet for one of the host's own addresses and a published port goes to the container (from other hosts, from
  containers of any network, and from the host itself, 127.0.0.1 included; not ::1, whose answers the kernel takes from
  the loopback interface only: it is refused at once, and clients go on to 127.0.0.1);
- only answers and published ports reach containers from outside their network, and so from other networks; a neighbour
  that routes packets straight to a container's address, or to the host's on a bridge, is not heard (`guard` comes
  before connection tracking);
- what comes from an internal network goes nowhere else;
- 127.0.0.0/8 can be answered over a bridge (route_localnet), so it must not be *asked* over it: dropped in `guard`;
  and packets from other hosts to 127.0.0.0/8 are never translated, the kernel then drops them as martians
  (CVE-2020-8558 and what came after it);
- what containers send out is masqueraded; what they send to a published port of the host too, since the other
  container would else answer directly, past the translation.
"""

import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from wherry.kernel.nftelements import Change, port, protocol
from wherry.kernel.nftelements import element as packed
from wherry.network.endpoint import Endpoint

_ANY = ("0.0.0.0", "::")
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


class Segment(NamedTuple):
    """What the rules say about one network on a device. `subnet*` "": it has none; `mode*` are the gateway's."""

    key: str
    device: str
    subnets4: tuple[str, ...] = ()
    subnets6: tuple[str, ...] = ()
    icc: bool = True
    internal: bool = False
    masquerade: bool = True
    mode4: str = "nat"
    mode6: str = "nat"
    snat4: str = ""
    snat6: str = ""
    trusted: tuple[str, ...] = ()


class TableOptions(NamedTuple):
    """`closed4`, `closed6`: links the host did not forward between until the daemon turned that on, so must not now."""

    table: str
    closed4: tuple[str, ...] = ()
    closed6: tuple[str, ...] = ()


def table(options: TableOptions, segments: Iterable[Segment], endpoints: Iterable[Endpoint]) -> str:
    """Commands that make the table what it has to be, whatever it is now, in one transaction."""
    name, segments = options.table, list(segments)
    # Declared with the table: elements of an interval map are sent with the map, before any later command.
    chains = "".join(f"  chain {chain} {{ }}\n" for segment in segments for chain in _chains(segment))
    closed = "\n    ".join(_closed(4, options.closed4) + _closed(6, options.closed6))
    lines = f"""\
add table inet {name}
delete table inet {name}
table inet {name} {{
{chains}{_maps()}
  set bridges {{ type ifname; }}
  set open4 {{ type ipv4_addr . inet_proto . inet_service; flags interval; }}
  set open6 {{ type ipv6_addr . inet_proto . inet_service; flags interval; }}
  map homes4 {{ type ipv4_addr : verdict; flags interval; }}
  map homes6 {{ type ipv6_addr : verdict; flags interval; }}
  map out4 {{ type ipv4_addr : verdict; flags interval; }}
  map out6 {{ type ipv6_addr : verdict; flags interval; }}
  map leaving {{ type ifname : verdict; }}
  map entering {{ type ifname : verdict; }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges fib daddr type local accept
    ip daddr vmap @homes4
    ip6 daddr vmap @homes6
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 return
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    ip6 daddr ::1 return
    fib daddr type local jump publish
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @ports4_at
    dnat ip to meta l4proto . th dport map @ports4
    dnat ip to ip daddr . meta l4proto . th dport map @spans4_at
    dnat ip to meta l4proto . th dport map @spans4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at
    dnat ip6 to meta l4proto . th dport map @ports6
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @spans6_at
    dnat ip6 to meta l4proto . th dport map @spans6
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ip saddr vmap @out4
    ip6 saddr vmap @out6
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname vmap @leaving
    oifname vmap @entering
    {closed}
  }}
}}
"""
    lines += "".join(add_segment(name, segment) for segment in segments)
    return lines + "".join(publish(name, endpoint) for endpoint in endpoints)


def _closed(version: int, closed: tuple[str, ...]) -> list[str]:
    links = ", ".join(f'"{link}"' for link in closed)
    return [f"meta nfproto ipv{version} iifname {{ {links} }} oifname {{ {links} }} drop"] if links else []


def _maps() -> str:
    lines = []
    for version in "46":
        address = f"ipv{version}_addr"
        for at, prefix in (("", ""), ("_at", f"{address} . ")):
            key = f"{prefix}inet_proto . inet_service"
            lines.append(f"  map ports{version}{at} {{ type {key} : {address} . inet_service; }}")
            lines.append(f"  map spans{version}{at} {{ type {key} : {address}; flags interval; }}")
    return "\n".join(lines)


def add_segment(table: str, segment: Segment) -> str:
    """Commands that make a network known."""
    t, key, device = f"inet {table}", segment.key, segment.device
    lines = [f'add element {t} bridges {{ "{device}" }}']
    lines += [f"add chain {t} {chain}" for chain in _chains(segment)]
    lines += [f"add rule {t} enter_{key} {rule}" for rule in _enter(segment)]
    lines.append(f'add element {t} entering {{ "{device}" : jump enter_{key} }}')
    if segment.internal:
        lines.append(f'add rule {t} leave_{key} oifname != "{device}" drop')
        lines.append(f'add element {t} leaving {{ "{device}" : jump leave_{key} }}')
    friends = ", ".join(f'"{name}"' for name in ("lo", device, *segment.trusted))
    lines.append(f"add rule {t} guard_{key} iifname != {{ {friends} }} drop")
    for version, subnets, mode in ((4, segment.subnets4, segment.mode4), (6, segment.subnets6, segment.mode6)):
        if not subnets:
            continue
        if mode in ("nat", "isolated"):
            homes = ", ".join(f"{subnet} : jump guard_{key}" for subnet in subnets)
            lines.append(f"add element {t} homes{version} {{ {homes} }}")
        lines += [f"add rule {t} out{version}_{key} {rule}" for rule in _out(segment, version, mode)]
        out = ", ".join(f"{subnet} : jump out{version}_{key}" for subnet in subnets)
        lines.append(f"add element {t} out{version} {{ {out} }}")
    return "\n".join(lines) + "\n"


def remove_segment(table: str, segment: Segment) -> str:
    """Commands that undo `add_segment`."""
    t, device = f"inet {table}", segment.device
    lines = [f'delete element {t} bridges {{ "{device}" }}', f'delete element {t} entering {{ "{device}" }}']
    if segment.internal:
        lines.append(f'delete element {t} leaving {{ "{device}" }}')
    for version, subnets, mode in ((4, segment.subnets4, segment.mode4), (6, segment.subnets6, segment.mode6)):
        if subnets:
            listed = ", ".join(subnets)
            if mode in ("nat", "isolated"):
                lines.append(f"delete element {t} homes{version} {{ {listed} }}")
            lines.append(f"delete element {t} out{version} {{ {listed} }}")
    chains = _chains(segment)
    lines += [f"flush chain {t} {chain}" for chain in chains] + [f"delete chain {t} {chain}" for chain in chains]
    return "\n".join(lines) + "\n"


def _chains(segment: Segment) -> list[str]:
    names = ["guard", "enter", *(["leave"] if segment.internal else [])]
    names += [f"out{version}" for version, has in ((4, segment.subnets4), (6, segment.subnets6)) if has]
    return [f"{name}_{segment.key}" for name in names]


def _enter(segment: Segment) -> list[str]:
    device = segment.device
    rules = ["ct state established,related accept"]
    rules.append(f'iifname "{device}" accept' if segment.icc else f'iifname "{device}" ct status dnat accept')
    if not segment.internal:
        rules.append(f'iifname != "{device}" ct status dnat accept')
        for version, mode in ((4, segment.mode4), (6, segment.mode6)):
            family, icmp = ("ip", "icmp") if version == 4 else ("ip6", "ipv6-icmp")
            if mode == "routed":
                rules.append(f"{family} daddr . meta l4proto . th dport @open{version} accept")
                rules.append(f"meta nfproto ipv{version} meta l4proto {icmp} accept")
            elif mode == "nat-unprotected":
                rules.append(f"meta nfproto ipv{version} accept")
    return [*rules, "drop"]


def _out(segment: Segment, version: int, mode: str) -> list[str]:
    device, snat = segment.device, segment.snat4 if version == 4 else segment.snat6
    rules = [f'oifname "{device}" ct status dnat masquerade']
    if segment.masquerade and mode in ("nat", "nat-unprotected"):
        family = "ip" if version == 4 else "ip6"
        action = f"snat {family} to {snat}" if snat else "masquerade"
        rules.append(f'oifname != "{device}" {action}')
    return rules


class Element(NamedTuple):
    """A published port, or a range of them, as it is in one of the maps: in `ports` an element for each."""

    map: str
    address: str
    """Of the host, "" where any will do; of the container in `open` sets."""
    proto: str
    first: int
    last: int
    target: str
    target_port: int


def elements(endpoint: Endpoint) -> list[Element]:
    """What leads an endpoint's ports to it."""
    found = []
    for one in endpoint.ports:
        version, target = (6, endpoint.ipv6) if ":" in one.host_ip else (4, endpoint.ipv4)
        proto, last = one.proto, one.count - 1
        if not one.host_port:
            inner = one.container_port
            found.append(Element(f"open{version}", target, proto, inner, inner + last, "", 0))
            continue
        at, address = ("", "") if one.host_ip in _ANY else ("_at", one.host_ip)
        if last and one.host_port == one.container_port:
            ends = one.host_port, one.host_port + last
            found.append(Element(f"spans{version}{at}", address, proto, *ends, target, 0))
            continue
        ends = one.host_port, one.host_port + last
        found.append(Element(f"ports{version}{at}", address, proto, *ends, target, one.container_port))
    return found


def written(endpoint: Endpoint) -> list[str]:
    """An endpoint's elements as the kernel shows them."""
    return [piece for one in elements(endpoint) for piece in _written(one)]


def read_ports(table: str) -> set[str]:
    """The elements of a listed table's maps and sets of ports."""
    named = re.findall(r"(?:map|set) (?:ports|spans|open)\S+ \{.*?\n\t\}", table, re.DOTALL)
    lists = [match[1] for block in named if (match := re.search(r"elements = \{([^}]*)\}", block))]
    return {" ".join(piece.split()) for found in lists for piece in found.split(",") if piece.strip()}


def publish(table: str, endpoint: Endpoint) -> str:
    """Commands that lead an endpoint's ports to it; "" when it has none."""
    return "".join(
        f"add element inet {table} {name} {{ {', '.join(piece for one in found for piece in _written(one))} }}\n"
        for name, found in _by_map(elements(endpoint)).items()
    )


def changes(gone: Iterable[Element], more: Iterable[Element]) -> list[Change]:
    """The same as changes to be performed at once, and the opposite."""
    found = []
    for add, group in ((False, gone), (True, more)):
        for name, members in _by_map(group).items():
            found.append(Change(add, name, [piece for one in members for piece in _packed(one, add=add)]))
    return found


def _by_map(found: Iterable[Element]) -> dict[str, list[Element]]:
    groups: dict[str, list[Element]] = {}
    for element in found:
        groups.setdefault(element.map, []).append(element)
    return groups


def _written(element: Element) -> list[str]:
    prefix = f"{element.address} . {element.proto} . " if element.address else f"{element.proto} . "
    if element.target_port:
        shift = element.target_port - element.first
        numbers = range(element.first, element.last + 1)
        return [f"{prefix}{number} : {element.target} . {number + shift}" for number in numbers]
    ports = str(element.first) if element.first == element.last else f"{element.first}-{element.last}"
    return [f"{prefix}{ports} : {element.target}" if element.target else prefix + ports]


def _packed(element: Element, *, add: bool) -> list[bytes]:
    begin = (_packed_address(element.address) if element.address else b"") + protocol(_NUMBERS[element.proto])
    target = _packed_address(element.target) if add and element.target else b""
    if not element.target_port:
        return [packed(begin + port(element.first), begin + port(element.last), target)]
    if not target:
        return [packed(begin + port(number)) for number in range(element.first, element.last + 1)]
    first = packed(begin + port(element.first), b"", target + port(element.target_port))
    if element.first == element.last:
        return [first]
    # A thousand at once: all are the first one but for two numbers.
    at = first.index(begin + port(element.first)) + len(begin)
    to = first.rindex(target + port(element.target_port)) + len(target)
    head, middle, tail = first[:at], first[at + 2 : to], first[to + 2 :]
    shift = element.target_port - element.first
    return [
        head + number.to_bytes(2, "big") + middle + (number + shift).to_bytes(2, "big") + tail
        for number in range(element.first, element.last + 1)
    ]


def _packed_address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
