"""A sandbox: a network namespace with a loopback interface and, on a bridge, one end of a veth pair.

It is made in two steps: `prepare` does what takes the kernel long and is the same for all, `adopt` gives it its name
and addresses.
"""

import os
import socket
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from wherry.kernel import netns, sysctl
from wherry.kernel.netlink import Message, Netlink, add_address, add_route, new_veth, set_bridge_port, set_link
from wherry.network.bridge import Bridge
from wherry.network.endpoint import Endpoint

INTERFACE = "eth0"
_PREFIX = "wveth"
_FORWARDING = 1.0


class Prepared(NamedTuple):
    """A sandbox without an address. `inside` is a netlink socket in it, to be closed by the owner."""

    path: Path
    host_ifname: str
    ifindex: int
    inside: Netlink


def is_host_interface(name: str) -> bool:
    """Whether the name is one that `prepare` gives to the host's end of a pair."""
    return name.startswith(_PREFIX) and len(name) == len(_PREFIX) + 10


def prepare(directory: Path, host: Netlink, bridge: Bridge, *, icc: bool) -> Prepared:
    """A sandbox in a new file of `directory`, on the bridge, both ends up. When anything fails, nothing is left."""
    key = os.urandom(5).hex()
    path, name = directory / key, _PREFIX + key
    ifindex, inside = netns.create(str(path), lambda: _plug(name, host, bridge, icc=icc))
    return Prepared(path, name, ifindex, inside)


def adopt(prepared: Prepared, endpoint: Endpoint) -> None:
    """Make a sandbox its endpoint's: file and addresses."""
    if endpoint.netns is not None:
        netns.move(str(prepared.path), str(endpoint.netns))
    _configure(prepared, endpoint)


def restore(path: Path, endpoint: Endpoint, host: Netlink, bridge: Bridge, *, icc: bool) -> None:
    """Give a sandbox that lost its veth pair a new one, of the same name."""
    ifindex, inside = netns.enter(str(path), lambda: _plug(endpoint.host_ifname, host, bridge, icc=icc))
    with inside:
        _configure(Prepared(path, endpoint.host_ifname, ifindex, inside), endpoint)


def plug_in(endpoint: Endpoint, host: Netlink, bridge: Bridge, *, icc: bool) -> None:
    """Put the host's end of the pair, which exists, (back) on the bridge."""
    name = endpoint.host_ifname
    host.request(set_link(name, master=bridge.ifindex, mtu=bridge.mtu, up=True), _port(name, icc=icc))
    _wait_forwarding(name, host, bridge)


def discard(prepared: Prepared) -> None:
    """Let go of a sandbox that nobody wants."""
    prepared.inside.close()
    delete(prepared.path)


def delete(path: Path) -> None:
    """Let go of the sandbox; absent is no error. The kernel takes the veth pair with it, in its own time."""
    netns.delete(str(path))


def _plug(name: str, host: Netlink, bridge: Bridge, *, icc: bool) -> tuple[int, Netlink]:
    """Runs in the sandbox; `host` is a socket of the host's namespace. Returns the inner end's ifindex and a socket."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pair = new_veth(name, peer=INTERFACE, peer_netns=here, mtu=bridge.mtu, master=bridge.ifindex)
        host.request(pair, _port(name, icc=icc), set_link(name, up=True))
    finally:
        os.close(here)
    try:
        sysctl.write(f"net/ipv6/conf/{INTERFACE}/disable_ipv6", "1")
    except FileNotFoundError:
        pass  # a kernel without IPv6
    ifindex = socket.if_nametoindex(INTERFACE)
    inside = Netlink()
    try:
        inside.request(set_link("lo", up=True), set_link(ifindex, up=True))
        _wait_forwarding(name, host, bridge)
    except BaseException:
        inside.close()
        raise
    return ifindex, inside


def _wait_forwarding(name: str, host: Netlink, bridge: Bridge) -> None:
    # The bridge learns of a port's carrier from a work queue, some 0.1 ms later, and if it is the first port then takes
    # another turn to run itself. A first packet sent before would be lost, and ARP asks again after a second only.
    deadline = monotonic() + _FORWARDING
    while not (host.link(name).forwarding and host.link_at(bridge.ifindex).operational) and monotonic() < deadline:
        sleep(0.0001)


def _port(name: str, *, icc: bool) -> Message:
    # Where bridged packets pass the IPv4 rules (br_netfilter), one that is sent to the host's address and translated to
    # its own sender's does not go up to the host and down again, but straight back through the port.
    return set_bridge_port(name, hairpin=True, isolated=not icc)


def _configure(prepared: Prepared, endpoint: Endpoint) -> None:
    prepared.inside.request(
        set_link(prepared.ifindex, mac=endpoint.mac),
        add_address(prepared.ifindex, endpoint.ipv4, endpoint.prefix),
        add_route(None, 0, gateway=endpoint.gateway),
    )
