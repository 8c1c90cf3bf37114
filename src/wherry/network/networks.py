"""Networks: which there are, and who is connected where."""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Any, NamedTuple

from wherry.errors import Conflict, FailedPrecondition, Internal, InvalidArgument, NotFound
from wherry.kernel import netns
from wherry.network import documents, ports, sandbox
from wherry.network.config import NetworkConfig
from wherry.network.default_bridge import DefaultBridge
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest
from wherry.state import Put, Store

_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}
_SANDBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_SHORTEST_PREFIX = 4


class _Network(NamedTuple):
    name: str
    id: str
    driver: str
    created: str


class Networks:
    """The networks of one daemon: bridge, host and none.

    networks = Networks(config, store)
    networks.start(live=[])
    web = EndpointRequest(network="bridge", ports=(PortRequest(80, host_port_start=8080),))
    endpoint = networks.connect(sandbox, web)
    ...                                  # run something in endpoint.netns
    networks.disconnect(sandbox)

    Synchronous; every method may be called from any thread. What the kernel holds survives the process: `start` takes
    it up again, removes what belongs to no endpoint in `live` and restores what those have lost. Needs CAP_NET_ADMIN
    and CAP_SYS_ADMIN.
    """

    def __init__(self, config: NetworkConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._directory = config.exec_root / "netns"
        self._networks = {name: self._identify(name, driver) for name, driver in _DRIVERS.items()}
        # None: on its way in.
        self._endpoints: dict[str, Endpoint | None] = {}
        self._lock = Lock()
        self._default: DefaultBridge | None = None

    def start(self, live: Collection[Endpoint]) -> None:
        """Make or adopt bridge and table; drop what belongs to no endpoint in `live`, restore what those lack."""
        netns.make_directory(str(self._directory))
        known = {endpoint.netns for endpoint in live}
        for name in os.listdir(self._directory):
            if self._directory / name not in known:
                sandbox.delete(self._directory / name)
        bridged = [endpoint for endpoint in live if endpoint.driver == "bridge"]
        self._default = DefaultBridge(self._config, self._directory, self._store, bridged)
        self._endpoints = {endpoint.sandbox: endpoint for endpoint in live}

    def close(self) -> None:
        """Release threads and sockets. Containers stay connected; without any, nothing is left in the kernel."""
        if self._default is None:
            return
        with self._lock:
            used = any(endpoint is None or endpoint.netns for endpoint in self._endpoints.values())
        self._default.close(remove=not used)
        self._default = None
        if not used:
            netns.remove_directory(str(self._directory))

    @property
    def gateway(self) -> str:
        """The host's address on the default bridge: what `host-gateway` means in --add-host."""
        return str(self._bridge().bridge.gateway)

    def connect(self, sandbox: str, request: EndpointRequest) -> Endpoint:
        """Make the sandbox and connect it. On any failure nothing is left.

        Conflict: a port is in use, or the sandbox is connected already. NotFound: no such network. InvalidArgument.
        """
        if not _SANDBOX.fullmatch(sandbox):
            raise InvalidArgument(f"invalid sandbox name {sandbox!r}", object=sandbox)
        network = self._find(request.network, "failed to set up container networking: ")
        _check(request, network)
        with self._lock:
            if sandbox in self._endpoints:
                raise Conflict(f"{sandbox} is connected already", object=sandbox)
            self._endpoints[sandbox] = None
        try:
            endpoint = self._connect(sandbox, network, request)
        except BaseException as error:
            with self._lock:
                self._endpoints.pop(sandbox, None)
            if isinstance(error, OSError):
                raise Internal(f"failed to set up container networking: {error}", object=sandbox) from error
            raise
        with self._lock:
            self._endpoints[sandbox] = endpoint
        return endpoint

    def disconnect(self, sandbox: str) -> None:
        """Undo `connect`; not connected is no error."""
        with self._lock:
            endpoint = self._endpoints.get(sandbox)
            if endpoint is None:
                return
            del self._endpoints[sandbox]
        if endpoint.driver == "bridge":
            self._bridge().disconnect(endpoint)

    def change_ports(self, sandbox: str, requests: Sequence[PortRequest], *, try_only: bool = False) -> Endpoint:
        """Publish exactly these ports of a connected sandbox, while it runs; its endpoint as it is now.

        Ports that stay are not touched. Conflict: one is taken, and nothing has changed. `try_only`: only find out.
        """
        endpoint = self.endpoint(sandbox)
        if endpoint is None:
            raise NotFound(f"{sandbox} is not connected", object=sandbox)
        if endpoint.driver != "bridge":
            return endpoint
        for request in requests:
            ports.check(request)
        changed = self._bridge().change_ports(endpoint, requests, try_only=try_only)
        with self._lock:
            self._endpoints[sandbox] = changed
        return changed

    def endpoint(self, sandbox: str) -> Endpoint | None:
        """Where the sandbox is connected."""
        with self._lock:
            return self._endpoints.get(sandbox)

    def list(self, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Every network's document. `names`: sandbox → the container's name by now (default: as it was connected)."""
        return [self._document(network, names or {}) for network in self._networks.values()]

    def inspect(self, name: str, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The document of one network by name, ID or unique beginning of the ID; NotFound."""
        return self._document(self._find(name), names or {})

    def wait_drained(self, timeout: float) -> bool:
        """Wait until nothing of what was disconnected is left in the kernel; False when it takes longer. For tests."""
        return self._bridge().wait_drained(timeout)

    def wait_warm(self, timeout: float) -> bool:
        """Wait until as many sandboxes as configured are ready ahead of need. For tests and benchmarks."""
        return self._bridge().wait_warm(timeout)

    def _connect(self, name: str, network: _Network, request: EndpointRequest) -> Endpoint:
        path = self._directory / name
        draft = Endpoint(
            sandbox=name,
            # "none": the runtime makes a namespace with nothing but a loopback interface by itself, and faster.
            netns=path if network.driver == "bridge" else None,
            network=network.name,
            network_id=network.id,
            driver=network.driver,
            endpoint_id=os.urandom(32).hex(),
            name=request.name,
        )
        if path.exists():
            # Of nobody: whoever is connected is known here.
            netns.delete(str(path))
        if network.driver == "bridge":
            return self._bridge().connect(path, draft, request)
        return draft

    def _document(self, network: _Network, names: Mapping[str, str]) -> dict[str, Any]:
        with self._lock:
            members = [e for e in self._endpoints.values() if e is not None and e.network_id == network.id]
        document = documents.network(network.name, network.id, network.created, network.driver, members, names)
        if network.driver == "bridge":
            documents.add_bridge(document, self._bridge().bridge, self._config)
        return document

    def _find(self, name: str, context: str = "") -> _Network:
        network = self._networks.get("bridge" if name == "default" else name)
        if network is not None:
            return network
        if len(name) >= _SHORTEST_PREFIX:
            found = [network for network in self._networks.values() if network.id.startswith(name)]
            if len(found) == 1:
                return found[0]
        raise NotFound(f"{context}network {name} not found", object=name)

    def _bridge(self) -> DefaultBridge:
        if self._default is None:
            raise FailedPrecondition("the networks have not been started")
        return self._default

    def _identify(self, name: str, driver: str) -> _Network:
        """The network's ID and birth, which stay the same for the life of the data root."""
        key = f"networks/{name}"
        saved = self._store.get(key)
        if saved is None:
            now = datetime.now(UTC)
            created = f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}000Z"
            saved = json.dumps({"id": os.urandom(32).hex(), "created": created}).encode()
            self._store.write(Put(key, saved))
        document = json.loads(saved)
        return _Network(name, document["id"], driver, document["created"])


def _check(request: EndpointRequest, network: _Network) -> None:
    """InvalidArgument with docker's words for what this network cannot give."""
    if request.ipv4 is not None:
        raise InvalidArgument(
            f"invalid config for network {network.name}: invalid endpoint settings:\n"
            "* user specified IP address is supported on user defined networks only\n"
            "* user specified IP address is supported only when connecting to networks with user configured subnets",
            object=request.ipv4,
        )
    if network.driver != "bridge":
        return
    if request.mac is not None and (not _MAC.fullmatch(request.mac) or int(request.mac[:2], 16) & 1):
        raise InvalidArgument(f"invalid MAC address: {request.mac}", object=request.mac)
    for port in request.ports:
        ports.check(port)
