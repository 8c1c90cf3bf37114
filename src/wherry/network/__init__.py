"""Networks of containers: drivers, addresses, published ports, network namespaces.

`Networks` is the whole interface, synchronous and callable from any thread.
"""

from wherry.network.config import NetworkConfig
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest, PublishedPort
from wherry.network.network import Network, Subnet
from wherry.network.networks import Networks
from wherry.network.specification import NetworkRequest

__all__ = [
    "Endpoint",
    "EndpointRequest",
    "Network",
    "NetworkConfig",
    "NetworkRequest",
    "Networks",
    "PortRequest",
    "PublishedPort",
    "Subnet",
]
