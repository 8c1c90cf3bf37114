"""The contract of network drivers.

A *driver* knows one kind of network. A *network* is a record of the store; a driver *opens* it, which makes what the
kernel holds of it, or adopts that, and *closes* it, which takes all of it away. Both are idempotent: after a crash the
same call completes or undoes what was half done.

A *box* is a sandbox that exists. `plug` puts an interface for one endpoint into it, up, without addresses: giving
those, routes and published ports is done for all drivers alike. `unplug` takes it out; what it leaves to the kernel's
own time is told by `settle`, and only then are the addresses given to others.

    driver.check(network)                       # InvalidArgument: an option, or an IPAM setting, it cannot do
    driver.open(network, live=[])
    endpoint = driver.draft(network, endpoint, box)     # names and hardware address decided; nothing done
    index = driver.plug(network, endpoint, box)
    driver.unplug(network, endpoint, box_goes=False)
    driver.settle(endpoint, lambda: ...)
    driver.close(network, lambda: ...)

Drivers raise wherry.errors, and OSError for what the kernel refuses. Every method may be called from any thread; calls
for one network's open and close are the caller's to put in order.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wherry.kernel.netlink import Netlink
from wherry.network.endpoint import Endpoint
from wherry.network.network import Network
from wherry.network.ports import Target
from wherry.network.sandbox import Prepared


@dataclass(slots=True)
class Box:
    """A sandbox as drivers see it: its file, and a netlink socket inside, which belongs to the caller.

    `ready`: an interface that was made ahead on the default bridge, and is not in use yet.
    """

    path: Path
    inside: Netlink
    ready: Prepared | None = None


class Driver(Protocol):
    """One kind of network."""

    name: str
    scope: str
    sandboxed: bool
    """Whether its endpoints live in a network namespace of ours."""

    def check(self, network: Network) -> None:
        """InvalidArgument or Unimplemented for what a network asks that this driver, or this kernel, cannot do."""
        ...

    def open(self, network: Network, live: Collection[Endpoint]) -> list[Endpoint]:
        """Make or adopt what the kernel holds of a network, and restore what `live` endpoints lost of theirs.

        Returns those that got a new interface: it has addresses, but its routes are gone.
        """
        ...

    def close(self, network: Network, gone: Callable[[], None]) -> None:
        """Take it away; what is not there is no error, nor is a network that was never opened.

        `gone` is called, from any thread, when nothing is left in the kernel.
        """
        ...

    def stem(self, network: Network) -> str:
        """What the names of its interfaces inside begin with ("eth")."""
        ...

    def draft(self, network: Network, endpoint: Endpoint, box: Box) -> Endpoint:
        """The endpoint with what this driver decides before anything is done: `host_ifname` and `mac`."""
        ...

    def plug(self, network: Network, endpoint: Endpoint, box: Box) -> int:
        """Put the interface into the box, up; its index there. When it fails nothing is left."""
        ...

    def unplug(self, network: Network, endpoint: Endpoint, *, box_goes: bool) -> None:
        """Take it out; absent is no error. `box_goes`: the whole sandbox is being removed, and takes it along."""
        ...

    def settle(self, endpoint: Endpoint, gone: Callable[[], None]) -> None:
        """Call `gone`, from any thread, once nothing answers for the endpoint's addresses any more."""
        ...

    def target(self, network: Network, endpoint: Endpoint) -> Target | None:
        """Where ports published for the endpoint lead; None: this kind of network publishes none."""
        ...
