"""host and none: no network namespace of ours, no addresses."""

from collections.abc import Callable, Collection

from wherry.errors import Internal, PermissionDenied
from wherry.network.drivers.contract import Box
from wherry.network.endpoint import Endpoint
from wherry.network.network import Network
from wherry.network.ports import Target


class PlainDriver:
    """docker's drivers "host" and "null"; only one network of each exists."""

    scope = "local"
    sandboxed = False

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, network: Network) -> None:
        if not network.built_in and not network.config_only:
            raise PermissionDenied(f'only one instance of "{self.name}" network is allowed', object=network.name)

    def open(self, network: Network, live: Collection[Endpoint]) -> list[Endpoint]:
        return []

    def close(self, network: Network, gone: Callable[[], None]) -> None:
        gone()

    def stem(self, network: Network) -> str:
        return "eth"

    def draft(self, network: Network, endpoint: Endpoint, box: Box) -> Endpoint:
        return endpoint

    def plug(self, network: Network, endpoint: Endpoint, box: Box) -> int:
        raise Internal(f"the network {network.name} has no interfaces", object=network.name)

    def unplug(self, network: Network, endpoint: Endpoint, *, box_goes: bool) -> None:
        pass

    def settle(self, endpoint: Endpoint, gone: Callable[[], None]) -> None:
        gone()

    def target(self, network: Network, endpoint: Endpoint) -> Target | None:
        return None
