"""A sandbox: a network namespace with a loopback interface and, on a bridge, one end of a veth pair."""

import os
import socket
from pathlib import Path

from wherry.kernel import netns, sysctl
from wherry.kernel.netlink import Message, Netlink, add_address, add_route, new_veth, set_bridge_port, set_link
from wherry.network.bridge import Bridge
from wherry.network.endpoint import Endpoint

INTERFACE = "eth0"
_PREFIX = "wveth"


def host_interface() -> str:
    """A new name for the host's end of a veth pair, 15 bytes."""
    return _PREFIX + os.urandom(5).hex()


def is_host_interface(name: str) -> bool:
    """Whether the name is one that `host_interface` gives."""
    return name.startswith(_PREFIX) and len(name) == len(_PREFIX) + 10


def create_isolated(path: Path) -> None:
    """A sandbox with nothing but the loopback interface."""
    netns.create(str(path), _raise_loopback)


def create(path: Path, endpoint: Endpoint, host: Netlink, bridge: Bridge, *, icc: bool) -> None:
    """A sandbox on the bridge. When anything fails, nothing is left."""
    netns.create(str(path), lambda: _attach(endpoint, host, bridge, icc=icc))


def attach(path: Path, endpoint: Endpoint, host: Netlink, bridge: Bridge, *, icc: bool) -> None:
    """Give a sandbox that lost its veth pair a new one."""
    netns.enter(str(path), lambda: _attach(endpoint, host, bridge, icc=icc))


def plug_in(endpoint: Endpoint, host: Netlink, bridge: Bridge, *, icc: bool) -> None:
    """Put the host's end of the pair, which exists, (back) on the bridge."""
    plugged = set_link(endpoint.host_ifname, master=bridge.ifindex, mtu=bridge.mtu, up=True)
    host.request(plugged, _port(endpoint, icc=icc))


def delete(path: Path) -> None:
    """Let go of the sandbox; absent is no error. The kernel takes the veth pair with it, in its own time."""
    netns.delete(str(path))


def _raise_loopback() -> None:
    with Netlink() as inside:
        inside.request(set_link("lo", up=True))


def _attach(endpoint: Endpoint, host: Netlink, bridge: Bridge, *, icc: bool) -> None:
    """Runs in the sandbox; `host` is a socket of the host's namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pair = new_veth(
            endpoint.host_ifname,
            peer=INTERFACE,
            peer_netns=here,
            peer_mac=endpoint.mac,
            mtu=bridge.mtu,
            master=bridge.ifindex,
        )
        host.request(pair, _port(endpoint, icc=icc), set_link(endpoint.host_ifname, up=True))
    finally:
        os.close(here)
    try:
        sysctl.write(f"net/ipv6/conf/{INTERFACE}/disable_ipv6", "1")
    except FileNotFoundError:
        pass  # a kernel without IPv6
    ifindex = socket.if_nametoindex(INTERFACE)
    with Netlink() as inside:
        inside.request(
            set_link("lo", up=True),
            set_link(ifindex, up=True),
            add_address(ifindex, endpoint.ipv4, endpoint.prefix),
            add_route(None, 0, gateway=endpoint.gateway),
        )


def _port(endpoint: Endpoint, *, icc: bool) -> Message:
    # Where bridged packets pass the IPv4 rules (br_netfilter), one that is sent to the host's address and translated to
    # its own sender's does not go up to the host and down again, but straight back through the port.
    return set_bridge_port(endpoint.host_ifname, hairpin=True, isolated=not icc)
