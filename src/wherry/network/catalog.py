"""Which networks there are: the records of the store, found by name or ID."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Lock

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.network.network import BUILT_IN, Network, built_in, changed, load
from wherry.state import Delete, Put, Store

_PREFIX = "networks/"


class Catalog:
    """Every network. A record is written before the kernel has the network, and goes after that has not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._networks: dict[str, Network] = {}
        self.unfinished: list[Network] = []
        """Those a crash left half made or half removed."""
        for name in BUILT_IN:
            network = self._identify(name)
            self._networks[network.id] = network
        for key, data in store.scan(_PREFIX):
            if key.removeprefix(_PREFIX) in BUILT_IN:
                continue
            network = load(data)
            if network.state:
                self.unfinished.append(network)
            else:
                self._networks[network.id] = network

    def __iter__(self) -> Iterator[Network]:
        with self._lock:
            return iter([network for network in self._networks.values() if not network.state])

    def find(self, name: str, context: str = "") -> Network:
        """By name, ID or unique beginning of the ID; NotFound."""
        name = "bridge" if name == "default" else name
        with self._lock:
            found = self._networks.get(name)
            known = [network for network in self._networks.values() if not network.state]
        if found is not None and not found.state:
            return found
        named = [network for network in known if network.name == name]
        if named:
            return named[0]
        matches = [network for network in known if name and network.id.startswith(name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise InvalidArgument(
                f"network {name} is ambiguous ({len(matches)} matches found on ID prefix)", object=name
            )
        raise NotFound(f"{context}network {name} not found", object=name)

    def reserved(self) -> list[Network]:
        """Every network, those that are being made or removed too."""
        with self._lock:
            return list(self._networks.values())

    def get(self, id: str) -> Network | None:
        """By full ID."""
        with self._lock:
            return self._networks.get(id)

    def reserve(self, network: Network) -> None:
        """Note that a network is being made; Conflict when its name is taken."""
        with self._lock:
            others = [other for other in self._networks.values() if other.state != "removing"]
            if any(other.name == network.name for other in others):
                raise Conflict(f"network with name {network.name} already exists", object=network.name)
            self._networks[network.id] = changed(network, state="creating")
        self._store.write(Put(_PREFIX + network.id, changed(network, state="creating").dump()))

    def put(self, network: Network) -> None:
        """Make it known, or change it."""
        if not network.built_in:
            self._store.write(Put(_PREFIX + network.id, network.dump()))
        with self._lock:
            self._networks[network.id] = network

    def withdraw(self, network: Network) -> None:
        """Note that it is being removed: from now on nobody finds it."""
        gone = changed(network, state="removing")
        self._store.write(Put(_PREFIX + network.id, gone.dump()))
        with self._lock:
            self._networks[network.id] = gone

    def forget(self, network: Network) -> None:
        """It is gone."""
        self._store.write(Delete(_PREFIX + network.id))
        with self._lock:
            self._networks.pop(network.id, None)

    def _identify(self, name: str) -> Network:
        """The network's ID and birth, which stay the same for the life of the data root."""
        key = _PREFIX + name
        saved = self._store.get(key)
        if saved is None:
            saved = json.dumps({"id": os.urandom(32).hex(), "created": now()}).encode()
            self._store.write(Put(key, saved))
        document = json.loads(saved)
        return built_in(name, document["id"], document["created"])


def now() -> str:
    """The time as docker writes it."""
    moment = datetime.now(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z"
