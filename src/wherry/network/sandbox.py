"""A sandbox: a network namespace with a loopback interface and the inner ends of what connects it.

On a bridge it is made in two steps: `prepare` does what takes the kernel long and is the same for all, `adopt` gives it
its name and addresses. Further interfaces are plugged into it as it is.
"""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple, TypeVar

from wherry.errors import InvalidArgument
from wherry.kernel import netns, sysctl
from wherry.kernel.netlink import Message, Netlink, add_address, new_veth, set_bridge_port, set_link
from wherry.network.bridge import Bridge
from wherry.network.endpoint import Endpoint

T = TypeVar("T")
INTERFACE = "eth0"
_PREFIX = "wveth"
_FORWARDING = 1.0
SYSCTLS = "com.docker.network.endpoint.sysctls"


class Prepared(NamedTuple):
    """A sandbox without an address. `inside` is a netlink socket in it, to be closed by the owner.

    `bridge`: the index of the one it is on.
    """

    path: Path
    host_ifname: str
    ifindex: int
    inside: Netlink
    bridge: int


def is_host_interface(name: str) -> bool:
    """Whether the name is one that `prepare` gives to the host's end of a pair."""
    return name.startswith(_PREFIX) and len(name) == len(_PREFIX) + 10


def host_interface() -> str:
    """A new name for the host's end of a pair."""
    return _PREFIX + os.urandom(5).hex()


def prepare(directory: Path, host: Netlink, bridge: Bridge, *, icc: bool) -> Prepared:
    """A sandbox in a new file of `directory`, on the bridge, both ends up. When anything fails, nothing is left."""
    key = os.urandom(5).hex()
    path, name = directory / key, _PREFIX + key
    ifindex, inside = netns.create(str(path), lambda: plug(name, INTERFACE, host, bridge, icc=icc))
    return Prepared(path, name, ifindex, inside, bridge.ifindex)


def adopt(prepared: Prepared, netns_path: Path) -> None:
    """Give a sandbox its name."""
    netns.move(str(prepared.path), str(netns_path))


def make(path: Path) -> Netlink:
    """A sandbox with a loopback interface only; a netlink socket in it."""

    def inside() -> Netlink:
        made = Netlink()
        try:
            made.request(set_link("lo", up=True))
        except BaseException:
            made.close()
            raise
        return made

    return netns.create(str(path), inside)


def take_over(path: Path, given: str) -> Netlink:
    """The network namespace `given`, made by whoever owns it, as a sandbox; a netlink socket in it."""
    netns.keep(str(path), given)
    try:
        return netns.enter(str(path), Netlink)
    except BaseException:
        netns.delete(str(path))
        raise


def enter(path: Path, work: Callable[[], T]) -> T:
    """The result of `work`, done in the sandbox."""
    return netns.enter(str(path), work)


def discard(prepared: Prepared) -> None:
    """Let go of a sandbox that nobody wants."""
    prepared.inside.close()
    delete(prepared.path)


def delete(path: Path) -> None:
    """Let go of the sandbox; absent is no error. The kernel takes the veth pair with it, in its own time."""
    netns.delete(str(path))


def plug(
    name: str, inner: str, host: Netlink, bridge: Bridge, *, icc: bool, ipv6: bool = False, mtu: int = 0
) -> tuple[int, Netlink]:
    """Runs in the sandbox; `host` is a socket of the host's namespace. Returns the inner end's ifindex and a socket."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pair = new_veth(name, peer=inner, peer_netns=here, mtu=mtu or bridge.mtu, master=bridge.ifindex)
        host.request(pair, port(name, icc=icc), set_link(name, up=True))
    finally:
        os.close(here)
    return finish(inner, ipv6=ipv6, wait=lambda: wait_forwarding(name, host, bridge))


def finish(inner: str, *, ipv6: bool, wait: Callable[[], None] = lambda: None) -> tuple[int, Netlink]:
    """Runs in the sandbox, which has the interface `inner`, down: brings it up; its ifindex and a socket."""
    set_ipv6(inner, enabled=ipv6)
    ifindex = socket.if_nametoindex(inner)
    inside = Netlink()
    try:
        inside.request(set_link("lo", up=True), set_link(ifindex, up=True))
        wait()
    except BaseException:
        inside.close()
        raise
    return ifindex, inside


def set_ipv6(inner: str, *, enabled: bool) -> None:
    """Runs in the sandbox. Where it is off there is no link-local address either, past every rule for IPv4."""
    try:
        if enabled:
            # Addresses are given, never found: and what is given must be usable at once.
            for name, value in (("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")):
                sysctl.write(f"net/ipv6/conf/{inner}/{name}", value)
        else:
            sysctl.write(f"net/ipv6/conf/{inner}/disable_ipv6", "1")
    except FileNotFoundError:
        pass  # a kernel without IPv6


def rehome(prepared: Prepared, host: Netlink, bridge: Bridge, endpoint: Endpoint, *, icc: bool) -> None:
    """Move a sandbox that was prepared on one bridge to another."""
    name = prepared.host_ifname
    host.request(set_link(name, master=bridge.ifindex, mtu=bridge.mtu), port(name, icc=icc))
    messages = [set_link(prepared.ifindex, mtu=bridge.mtu)]
    if endpoint.ifname != INTERFACE:
        down, renamed = set_link(prepared.ifindex, up=False), set_link(prepared.ifindex, name=endpoint.ifname)
        messages += [down, renamed, set_link(prepared.ifindex, up=True)]
    prepared.inside.request(*messages)
    if endpoint.ipv6:
        enter(prepared.path, lambda: set_ipv6(endpoint.ifname, enabled=True))
    wait_forwarding(name, host, bridge)


def plug_in(endpoint: Endpoint, host: Netlink, bridge: Bridge, *, icc: bool) -> None:
    """Put the host's end of the pair, which exists, (back) on the bridge."""
    name = endpoint.host_ifname
    host.request(set_link(name, master=bridge.ifindex, mtu=bridge.mtu, up=True), port(name, icc=icc))
    wait_forwarding(name, host, bridge)


def wait_forwarding(name: str, host: Netlink, bridge: Bridge) -> None:
    """Wait until the bridge lets the port's frames through."""
    # The bridge learns of a port's carrier from a work queue, some 0.1 ms later, and if it is the first port then takes
    # another turn to run itself. A first packet sent before would be lost, and ARP asks again after a second only.
    deadline = monotonic() + _FORWARDING
    while not (host.link(name).forwarding and host.link_at(bridge.ifindex).operational) and monotonic() < deadline:
        sleep(0.0001)


def port(name: str, *, icc: bool) -> Message:
    """The settings of a bridge's port."""
    # Where bridged packets pass the IPv4 rules (br_netfilter), one that is sent to the host's address and translated to
    # its own sender's does not go up to the host and down again, but straight back through the port.
    return set_bridge_port(name, hairpin=True, isolated=not icc)


def addresses(endpoint: Endpoint, index: int) -> list[Message]:
    """What gives an interface its endpoint's addresses."""
    messages = [set_link(index, mac=endpoint.mac)] if endpoint.mac else []
    if endpoint.ipv4:
        messages.append(add_address(index, endpoint.ipv4, endpoint.prefix))
    if endpoint.ipv6:
        messages.append(add_address(index, endpoint.ipv6, endpoint.prefix6))
    return messages


def parse_sysctls(options: Mapping[str, str], ifname: str) -> list[tuple[str, str]]:
    """(path, value) of the settings an endpoint's options ask for; `IFNAME` stands for its interface."""
    found = []
    for item in options.get(SYSCTLS, "").split(","):
        if not item:
            continue
        name, equals, value = item.partition("=")
        parts = name.replace("IFNAME", "\0").split(".")
        if not equals or len(parts) != 5 or parts[0] != "net" or parts[3] != "\0":
            raise InvalidArgument(
                f"unrecognised network interface sysctl '{item}'", object=SYSCTLS, hint="net.X.Y.IFNAME.Z=value"
            )
        if parts[1] not in ("ipv4", "ipv6", "mpls") or parts[2] not in ("conf", "neigh"):
            raise InvalidArgument(f"unsupported network interface sysctl '{item}'", object=SYSCTLS)
        if "/" in name:
            raise InvalidArgument(f"unrecognised network interface sysctl '{item}'", object=SYSCTLS)
        found.append(("/".join([*parts[:3], ifname, parts[4]]), value))
    return found


def apply_sysctls(path: Path, settings: list[tuple[str, str]]) -> None:
    """Make the settings in the sandbox."""

    def write() -> None:
        for name, value in settings:
            sysctl.write(name, value)

    if settings:
        enter(path, write)
