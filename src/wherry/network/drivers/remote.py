"""Networks of plugins: docker's remote driver protocol (libnetwork remote.md).

The plugin makes an interface on the host, we move it into the sandbox. What it keeps is its own affair: it is told of
every network and endpoint that comes and goes, and asked for nothing at a restart.
"""

import errno
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from ipaddress import ip_interface
from threading import Lock
from typing import Any, NamedTuple

from wherry.errors import Internal, Unavailable, WherryError
from wherry.kernel.netlink import Link, Netlink, delete_link, move_link
from wherry.network import bridge as bridges
from wherry.network import sandbox
from wherry.network.drivers.contract import Box
from wherry.network.endpoint import Endpoint
from wherry.network.network import Network
from wherry.network.ports import Target
from wherry.plugins import Plugin

_GENERIC = "com.docker.network.generic"
_PORTMAP = "com.docker.network.portmap"


class _Joined(NamedTuple):
    source: str
    stem: str
    gateway: str
    gateway6: str


class RemoteDriver:
    """A plugin that implements NetworkDriver, as a driver."""

    sandboxed = True

    def __init__(self, plugin: Plugin, host: Netlink) -> None:
        self.name = plugin.name
        self._plugin = plugin
        self._host = host
        found = self._call("GetCapabilities", None).get("Scope", "local")
        if found not in ("local", "global"):
            raise Internal(f"plugin {self.name} has an invalid scope: {found!r}", object=self.name)
        self.scope = str(found)
        self._joined: dict[str, _Joined] = {}
        self._lock = Lock()

    def check(self, network: Network) -> None:
        pass

    def open(self, network: Network, live: Collection[Endpoint]) -> list[Endpoint]:
        if network.state == "":
            return []  # at a restart: the plugin knows it
        data: dict[int, list[dict[str, Any]]] = {4: [], 6: []}
        for subnet in network.subnets:
            gateway = network.gateways.get(subnet.subnet, "")
            prefix = subnet.subnet.partition("/")[2]
            data[subnet.version].append(
                {
                    "AddressSpace": "LocalDefault",
                    "Pool": subnet.subnet,
                    "Gateway": f"{gateway}/{prefix}" if gateway else "",
                    "AuxAddresses": {name: f"{text}/{prefix}" for name, text in subnet.auxiliary.items()},
                }
            )
        options = {
            _GENERIC: dict(network.options),
            "com.docker.network.enable_ipv4": network.ipv4,
            "com.docker.network.enable_ipv6": network.ipv6,
            **({"com.docker.network.internal": True} if network.internal else {}),
        }
        body = {"NetworkID": network.id, "Options": options, "IPv4Data": data[4], "IPv6Data": data[6]}
        self._call("CreateNetwork", body)
        return []

    def close(self, network: Network, gone: Callable[[], None]) -> None:
        try:
            self._call("DeleteNetwork", {"NetworkID": network.id})
        except Internal:
            # It does not know it: a creation that failed, or one that was removed behind our back.
            pass
        gone()

    def stem(self, network: Network) -> str:
        return "eth"

    def draft(self, network: Network, endpoint: Endpoint, box: Box) -> Endpoint:
        """Creates and joins the endpoint: only the plugin knows its address, its gateway and its interface's name."""
        ids = {"NetworkID": network.id, "EndpointID": endpoint.endpoint_id}
        given = {
            "Address": f"{endpoint.ipv4}/{endpoint.prefix}" if endpoint.ipv4 else "",
            "AddressIPv6": f"{endpoint.ipv6}/{endpoint.prefix6}" if endpoint.ipv6 else "",
            "MacAddress": endpoint.mac,
        }
        answer = self._call("CreateEndpoint", {**ids, "Options": dict(endpoint.options), "Interface": given})
        try:
            joined = self._join(ids, box)
            made = _with_interface(endpoint, answer.get("Interface") or {})
        except BaseException:
            self._leave(network, endpoint)
            raise
        with self._lock:
            self._joined[endpoint.endpoint_id] = joined
        return replace(made, gateway=joined.gateway, gateway6=joined.gateway6)

    def plug(self, network: Network, endpoint: Endpoint, box: Box) -> int:
        with self._lock:
            joined = self._joined.pop(endpoint.endpoint_id)
        try:
            link = self._source(joined.source)
            fd = os.open(box.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._host.request(move_link(link.ifindex, fd, endpoint.ifname))
            finally:
                os.close(fd)
            index, inside = sandbox.enter(box.path, lambda: sandbox.finish(endpoint.ifname, ipv6=bool(endpoint.ipv6)))
        except BaseException:
            self._leave(network, endpoint)
            raise
        inside.close()
        return index

    def unplug(self, network: Network, endpoint: Endpoint, *, box_goes: bool) -> None:
        if not box_goes and endpoint.netns is not None:
            try:
                with sandbox.enter(endpoint.netns, Netlink) as inside:
                    inside.request(delete_link(endpoint.ifname))
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
                    raise
        self._leave(network, endpoint)

    def settle(self, endpoint: Endpoint, gone: Callable[[], None]) -> None:
        gone()

    def target(self, network: Network, endpoint: Endpoint) -> Target | None:
        return None

    def _join(self, ids: dict[str, str], box: Box) -> _Joined:
        answer = self._call("Join", {**ids, "SandboxKey": str(box.path), "Options": {}})
        name = answer.get("InterfaceName") or {}
        source, stem = str(name.get("SrcName", "")), str(name.get("DstPrefix", "") or "eth")
        if not source:
            raise Internal(f"plugin {self.name} named no interface for the container", object=self.name)
        return _Joined(source, stem, _address(answer.get("Gateway")), _address(answer.get("GatewayIPv6")))

    def _source(self, name: str) -> Link:
        link = bridges.find(self._host, name)
        if link is None:
            raise Internal(f"plugin {self.name} promised the interface {name}, which does not exist", object=name)
        return link

    def _leave(self, network: Network, endpoint: Endpoint) -> None:
        ids = {"NetworkID": network.id, "EndpointID": endpoint.endpoint_id}
        for method in ("Leave", "DeleteEndpoint"):
            try:
                self._call(method, ids)
            except WherryError:
                # Gone is gone: what the plugin keeps of it nobody else can take away.
                continue

    def _call(self, method: str, body: Any) -> dict[str, Any]:
        answer = self._plugin.call(f"NetworkDriver.{method}", body)
        if answer is not None and not isinstance(answer, dict):
            raise Unavailable(f"plugin {self.name} gave no object as an answer to {method}", object=self.name)
        return answer or {}


def _address(value: Any) -> str:
    return str(value).partition("/")[0] if value else ""


def _with_interface(endpoint: Endpoint, interface: dict[str, Any]) -> Endpoint:
    """The endpoint with what the plugin chose itself."""
    try:
        if interface.get("Address") and not endpoint.ipv4:
            found = ip_interface(str(interface["Address"]))
            endpoint = replace(endpoint, ipv4=str(found.ip), prefix=found.network.prefixlen)
        if interface.get("AddressIPv6") and not endpoint.ipv6:
            found = ip_interface(str(interface["AddressIPv6"]))
            endpoint = replace(endpoint, ipv6=str(found.ip), prefix6=found.network.prefixlen)
    except ValueError as error:
        raise Internal(f"the plugin of network {endpoint.network} gave a bad address: {error}") from None
    mac = str(interface.get("MacAddress") or "")
    return replace(endpoint, mac=mac) if mac and not endpoint.mac else endpoint
