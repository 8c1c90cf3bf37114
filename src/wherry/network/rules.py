"""The nftables table of one daemon, as text.

Everything is said once, by a fixed set of rules; what changes with containers are elements of two maps. So a packet
costs the same with one published port or ten thousand, and publishing one costs one element.

    published      proto . port            → container . port      for bindings to 0.0.0.0
    published_at   address . proto . port  → container . port      for bindings to one address

What the rules do:
- a packet for one of the host's own addresses and a published port goes to the container (from other hosts, from
  containers, and from the host itself, 127.0.0.1 included);
- only answers and published ports reach containers from outside; a neighbour that routes packets straight to a
  container's address is not heard (the drop in `guard` comes before connection tracking);
- 127.0.0.0/8 can be answered over the bridge (route_localnet), so it must not be *asked* over it: dropped in `guard`;
  and packets from other hosts to 127.0.0.0/8 are never translated, the kernel then drops them as martians
  (CVE-2020-8558 and what came after it);
- what containers send out is masqueraded; what they send to a published port of the host too, since the other
  container would else answer directly, past the translation.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import NamedTuple

from wherry.network.endpoint import Endpoint

_ANY = "0.0.0.0"


class TableOptions(NamedTuple):
    """`closed_links`: those the host did not forward between until the daemon turned forwarding on, so must not now."""

    table: str
    bridge: str
    subnet: IPv4Network
    icc: bool
    masquerade: bool
    closed_links: tuple[str, ...]


def table(options: TableOptions, endpoints: Iterable[Endpoint]) -> str:
    """Commands that make the table what it has to be, whatever it is now, in one transaction."""
    name, bridge, subnet = options.table, options.bridge, options.subnet
    inside = "accept" if options.icc else "ct status dnat accept"
    masquerade = f'ip saddr {subnet} oifname != "{bridge}" masquerade' if options.masquerade else ""
    links = ", ".join(f'"{link}"' for link in options.closed_links)
    closed = f"iifname {{ {links} }} oifname {{ {links} }} drop" if links else ""
    lines = f"""\
add table ip {name}
delete table ip {name}
table ip {name} {{
  map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map published_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname != {{ "lo", "{bridge}" }} ip daddr {subnet} drop
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 return
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
    {masquerade}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" ct state established,related accept
    iifname "{bridge}" oifname "{bridge}" {inside}
    iifname != "{bridge}" oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
    {closed}
  }}
}}
"""
    return lines + "".join(publish(name, endpoint) for endpoint in endpoints)


def publish(table: str, endpoint: Endpoint) -> str:
    """Commands that lead an endpoint's ports to it; "" when it has none."""
    return _elements("add", table, endpoint)


def withdraw(table: str, endpoint: Endpoint) -> str:
    """Commands that undo `publish`."""
    return _elements("delete", table, endpoint)


def _elements(verb: str, table: str, endpoint: Endpoint) -> str:
    anywhere, somewhere = [], []
    for port in endpoint.ports:
        value = f" : {endpoint.ipv4} . {port.container_port}" if verb == "add" else ""
        if port.host_ip == _ANY:
            anywhere.append(f"{port.proto} . {port.host_port}{value}")
        else:
            somewhere.append(f"{port.host_ip} . {port.proto} . {port.host_port}{value}")
    text = ""
    if anywhere:
        text += f"{verb} element ip {table} published {{ {', '.join(anywhere)} }}\n"
    if somewhere:
        text += f"{verb} element ip {table} published_at {{ {', '.join(somewhere)} }}\n"
    return text
