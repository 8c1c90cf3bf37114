"""Networks of containers: bridge, host and none; addresses, published ports, network namespaces.

`Networks` is the whole interface, synchronous and callable from any thread.
"""

from wherry.network.config import NetworkConfig
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest, PublishedPort
from wherry.network.networks import Networks

__all__ = ["Endpoint", "EndpointRequest", "NetworkConfig", "Networks", "PortRequest", "PublishedPort"]
