"""rtnetlink(7): links, addresses, routes and neighbours of a network namespace.

A `Message` is one request as bytes; `Netlink` is a socket that sends any number of them in one system call. The
socket belongs to the namespace of the thread that opened it, for good, and may then be used from any thread.

    with Netlink() as host:
        host.request(new_bridge("br0", mac="02:42:00:00:00:01"))
        index = host.link("br0").ifindex
        host.request(add_address(index, "10.0.0.1", 24), set_link(index, up=True))

Sources: Linux include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour}.h. Written here rather than taken from
a library because importing one costs tens of milliseconds and building a request with it one.
"""

from wherry.kernel.netlink._messages import (
    Message,
    add_address,
    add_flooding,
    add_route,
    delete_address,
    delete_group,
    delete_link,
    delete_route,
    ipvlan,
    macvlan,
    move_link,
    new_bridge,
    new_child,
    new_veth,
    set_bridge_port,
    set_link,
    vlan,
    vxlan,
)
from wherry.kernel.netlink._parse import Address, Link, Route
from wherry.kernel.netlink._socket import Netlink

__all__ = [
    "Address",
    "Link",
    "Message",
    "Netlink",
    "Route",
    "add_address",
    "add_flooding",
    "add_route",
    "delete_address",
    "delete_group",
    "delete_link",
    "delete_route",
    "ipvlan",
    "macvlan",
    "move_link",
    "new_bridge",
    "new_child",
    "new_veth",
    "set_bridge_port",
    "set_link",
    "vlan",
    "vxlan",
]
