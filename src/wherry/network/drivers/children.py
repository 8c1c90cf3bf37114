"""macvlan and ipvlan: interfaces that stand on one of the host's, and are on its network as hosts of their own."""

import errno
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from os import urandom

from wherry.errors import FailedPrecondition, InvalidArgument, Unimplemented
from wherry.kernel.netlink import Link, Netlink, delete_link, ipvlan, macvlan, new_child, set_link, vlan
from wherry.network import bridge as bridges
from wherry.network import sandbox
from wherry.network.drivers.contract import Box
from wherry.network.endpoint import Endpoint
from wherry.network.network import Network
from wherry.network.options import PREFIX
from wherry.network.ports import Target

_MACVLAN_MODES = {"bridge": 4, "private": 1, "vepa": 2, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPROTONOSUPPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """`parent` "": none, so the network is internal, on a dummy link of its own."""

    parent: str = ""
    mode: str
    flag: str = "bridge"
    mtu: int = 0


class ChildDriver:
    """docker's drivers "macvlan" and "ipvlan"."""

    scope = "local"
    sandboxed = True

    def __init__(self, name: str, host: Netlink, networks: Callable[[], Collection[Network]]) -> None:
        self.name = name
        self._host = host
        self._networks = networks

    def check(self, network: Network) -> None:
        options = self._parse(network.options)
        for other in self._networks():
            if other.driver != self.name or other.id == network.id or not options.parent:
                continue
            if self._parse(other.options).parent == options.parent and "passthru" in (
                options.mode,
                self._parse(other.options).mode,
            ):
                raise FailedPrecondition(
                    f"network {other.name} is already using parent interface {options.parent}", object=options.parent
                )

    def open(self, network: Network, live: Collection[Endpoint]) -> list[Endpoint]:
        options = self._parse(network.options)
        if not options.parent:
            self._make(f"dm-{network.id[:12]}", "dummy", b"", 0, "an internal network without a parent")
            return []
        if bridges.find(self._host, options.parent) is None:
            base, dot, number = options.parent.rpartition(".")
            below = bridges.find(self._host, base) if dot else None
            if below is None or not number.isdigit() or not 0 < int(number) < 4095:
                raise InvalidArgument(f"the parent interface {options.parent} does not exist", object=options.parent)
            self._make(options.parent, "vlan", vlan(int(number)), below.ifindex, "an 802.1Q sub-interface")
        return []

    def close(self, network: Network, gone: Callable[[], None]) -> None:
        with suppress(InvalidArgument):
            name = self._parse(network.options).parent or f"dm-{network.id[:12]}"
            shared = any(
                other.id != network.id and other.options.get("parent") == name and not other.state
                for other in self._networks()
            )
            link = bridges.find(self._host, name)
            if link is not None and link.group == bridges.OURS and not shared:
                bridges.remove(self._host, name)
        gone()

    def stem(self, network: Network) -> str:
        return network.options.get(f"{PREFIX}container_iface_prefix", "eth")

    def draft(self, network: Network, endpoint: Endpoint, box: Box) -> Endpoint:
        options = self._parse(network.options)
        if self.name == "ipvlan":
            # All share the parent's hardware address; above layer 2 there is nobody to route through.
            endpoint = replace(endpoint, mac="")
            if options.mode == "l2":
                return endpoint
            gateway, gateway6 = "0.0.0.0" if endpoint.ipv4 else "", "::" if endpoint.ipv6 else ""
            return replace(endpoint, gateway=gateway, gateway6=gateway6)
        if options.mode == "passthru":
            return replace(endpoint, mac=self._parent(network, options).mac)
        return replace(endpoint, mac=endpoint.mac or "02:42:" + urandom(4).hex(":"))

    def plug(self, network: Network, endpoint: Endpoint, box: Box) -> int:
        options = self._parse(network.options)
        parent = self._parent(network, options)
        data = (
            macvlan(_MACVLAN_MODES[options.mode])
            if self.name == "macvlan"
            else ipvlan(_IPVLAN_MODES[options.mode], _IPVLAN_FLAGS[options.flag])
        )
        fd = os.open(box.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mtu = options.mtu or parent.mtu
            self._host.request(
                new_child(endpoint.ifname, self.name, data, parent=parent.ifindex, netns=fd, mtu=mtu),
                *([] if parent.up else [set_link(parent.ifindex, up=True)]),
            )
        except OSError as error:
            raise self._explained(error, self.name) from None
        finally:
            os.close(fd)
        try:
            index, inside = sandbox.enter(box.path, lambda: sandbox.finish(endpoint.ifname, ipv6=bool(endpoint.ipv6)))
        except BaseException:
            self.unplug(network, endpoint, box_goes=False)
            raise
        inside.close()
        return index

    def unplug(self, network: Network, endpoint: Endpoint, *, box_goes: bool) -> None:
        if endpoint.netns is None:
            return
        # Though the sandbox goes: until the kernel has taken it apart its interface would answer for the address.
        try:
            with sandbox.enter(endpoint.netns, Netlink) as inside:
                inside.request(delete_link(endpoint.ifname))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENOENT):
                raise

    def settle(self, endpoint: Endpoint, gone: Callable[[], None]) -> None:
        gone()

    def target(self, network: Network, endpoint: Endpoint) -> Target | None:
        return None

    def _parent(self, network: Network, options: _Options) -> Link:
        return self._host.link(options.parent or f"dm-{network.id[:12]}")

    def _make(self, name: str, kind: str, data: bytes, parent: int, what: str) -> None:
        if bridges.find(self._host, name) is not None:
            return
        try:
            self._host.request(
                new_child(name, kind, data, parent=parent), set_link(name, group=bridges.OURS), set_link(name, up=True)
            )
        except OSError as error:
            raise self._explained(error, kind, what) from None

    def _explained(self, error: OSError, kind: str, what: str = "") -> Exception:
        if error.errno not in _UNSUPPORTED:
            return error
        return Unimplemented(
            f"{what or 'the driver ' + self.name} is not possible: this kernel has no {kind} links",
            object=kind,
            hint=f"load the module {'8021q' if kind == 'vlan' else kind}",
        )

    def _parse(self, options: Mapping[str, str]) -> _Options:
        modes = _MACVLAN_MODES if self.name == "macvlan" else _IPVLAN_MODES
        found: dict[str, str | int] = {"mode": next(iter(modes))}
        for key, value in options.items():
            if key == "parent":
                found["parent"] = value
            elif key == f"{self.name}_mode":
                if value and value not in modes:
                    raise InvalidArgument(f"requested {self.name} mode '{value}' is not valid", object=key)
                found["mode"] = value or next(iter(modes))
            elif key == "ipvlan_flag" and self.name == "ipvlan":
                if value not in _IPVLAN_FLAGS:
                    raise InvalidArgument(f"requested ipvlan flag '{value}' is not valid", object=key)
                found["flag"] = value
            elif key == f"{PREFIX}driver.mtu" and value.isdigit():
                found["mtu"] = int(value)
            elif key != f"{PREFIX}container_iface_prefix":
                raise InvalidArgument(
                    f"unknown option {key} of the {self.name} driver", object=key, hint=f"parent, {self.name}_mode"
                )
        return _Options(**found)  # type: ignore[arg-type]
