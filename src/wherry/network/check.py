"""Networks against the kernel: what `system fsck` asks of this room."""

import os
import re
import socket
from functools import partial
from pathlib import Path

from wherry.network import sandbox
from wherry.network.firewall import Firewall
from wherry.network.sandboxes import Sandboxes
from wherry.spec.finding import Findings

_AREA = "networks"
_OF_A_CONTAINER = re.compile(r"[0-9a-f]{64}")


def check(directory: Path, sandboxes: Sandboxes, firewall: Firewall, findings: Findings) -> None:
    """Every endpoint has its link and its ports lead to it; no namespace or port is there for nobody."""
    for name in sorted(os.listdir(directory)):
        # Those with other names are made ahead, and belong to nobody yet.
        if _OF_A_CONTAINER.fullmatch(name) and not sandboxes.knows(name):
            act = partial(sandbox.delete, directory / name)
            findings.add(_AREA, name, "a network namespace of no container", "remove it", act)
    for endpoint in sandboxes.every():
        if endpoint.host_ifname and not _is_there(endpoint.host_ifname):
            problem = f"its link {endpoint.host_ifname} to the network {endpoint.network} is gone"
            findings.add(_AREA, endpoint.name or endpoint.sandbox, problem, "connect it again, or restart it")
    missing, extra = firewall.differences()
    for word, found in (("is missing", missing), ("belongs to nobody", extra)):
        for element in sorted(found):
            findings.add(_AREA, element, f"in the nftables table: it {word}", "say the table anew", firewall.restore)


def _is_there(link: str) -> bool:
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True
