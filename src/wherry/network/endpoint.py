"""What the engine asks of a network, and what it gets: plain data.

An `Endpoint` is the whole truth about one sandbox's place in one network. The engine keeps it in the container's
record and hands it back to `Networks.start` after a restart, so it must survive JSON: `to_json` and `from_json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class PortRequest:
    """One port of the container to be reachable from outside, or `count` that follow each other on both sides.

    `host_ip` "" means the daemon's default bind address. `host_port_start` 0 means any free port of the machine's
    ephemeral range; a range (`host_port_end` above `host_port_start`) means its first free port. Both only with a
    `count` of 1.
    """

    container_port: int
    proto: str = "tcp"
    host_ip: str = ""
    host_port_start: int = 0
    host_port_end: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the host that leads to the container, or `count` that follow each other on both sides.

    `host_port` 0: the port is open at the container's own address, and none of the host's leads to it (routed mode).
    """

    container_port: int
    proto: str
    host_ip: str
    host_port: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """How a sandbox is to be connected to one network.

    `network` is the name or the ID of a network. `name` is the container's, for messages and for the network's
    inspect document. `mac`, `ipv4` and `ipv6` None mean: chosen by the network. `ports` count for the whole sandbox:
    they lead to whichever network has its default route. `names` are what others on the network may call it.
    """

    network: str
    name: str = ""
    mac: str | None = None
    ipv4: str | None = None
    ports: tuple[PortRequest, ...] = ()
    ipv6: str | None = None
    priority: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One sandbox connected to one network.

    `netns` is the path to join, None for the host's own namespace. `driver` is docker's: "bridge", "host" or "null";
    for the last two the addresses are empty and `prefix` is 0. `ifname` is the interface inside ("eth0"),
    `host_ifname` its other end, "" where it has none. `ipv6` and `gateway6` are empty where the network has no IPv6.
    `internal`: its network leads nowhere else. `ports` is empty but for the one that has the default route.
    """

    sandbox: str
    netns: Path | None
    network: str
    network_id: str
    driver: str
    endpoint_id: str
    name: str = ""
    ifname: str = ""
    host_ifname: str = ""
    mac: str = ""
    ipv4: str = ""
    prefix: int = 0
    gateway: str = ""
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    ports: tuple[PublishedPort, ...] = ()
    priority: int = 0
    internal: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form that `from_json` reads back."""
        document: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        document["netns"] = None if self.netns is None else str(self.netns)
        document["ports"] = [[p.container_port, p.proto, p.host_ip, p.host_port, p.count] for p in self.ports]
        document["names"] = list(self.names)
        document["options"] = dict(self.options)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Endpoint":
        """The endpoint that `to_json` wrote."""
        values = {name: document[name] for name in _PLAIN if name in document}
        netns = document["netns"]
        ports = tuple(PublishedPort(*port) for port in document["ports"])
        names = tuple(document.get("names", ()))
        options = document.get("options", {})
        return cls(netns=None if netns is None else Path(netns), ports=ports, names=names, options=options, **values)


_PLAIN = tuple(name for name in Endpoint.__slots__ if name not in ("netns", "ports", "names", "options"))
