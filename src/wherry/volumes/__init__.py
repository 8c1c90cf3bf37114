"""Volumes: directories that outlive containers, and what may be mounted on them.

    <data-root>/volumes/<name>/_data

A volume is plain, or has driver options (`type`, `device`, `o`) and is then mounted on its `_data` from the first
`acquire` to the last `release`. Records are kept in the state store. Nothing in a volume is trusted: it is the
containers' to write, so paths in it are resolved by the kernel beneath its directory (CVE-2021-30465).
"""

from wherry.volumes._driver import Driver, Found
from wherry.volumes._filters import Filters, Users
from wherry.volumes._volume import Volume
from wherry.volumes._volumes import Listing, Pruned, Volumes

__all__ = ["Driver", "Filters", "Found", "Listing", "Pruned", "Users", "Volume", "Volumes"]
