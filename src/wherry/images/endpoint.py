"""Where one registry's API is, and what it may be used for."""

import ssl
from typing import NamedTuple

ALL = frozenset(("pull", "resolve", "push"))


class Endpoint(NamedTuple):
    """One base address to try; `tls`: the context for it, False where nothing is verified. Never ends in a slash.

    `mirror`: credentials are not for it, and what it cannot do the next one may. `verbatim`: the address is the API's
    root already. `capabilities`: "resolve" is to say what a tag stands for. `headers` go with every request to it.
    """

    address: str
    tls: ssl.SSLContext | bool
    mirror: bool = False
    verbatim: bool = False
    capabilities: frozenset[str] = ALL
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def root(self) -> str:
        """The API's own address: requests go below it."""
        return self.address if self.verbatim else f"{self.address}/v2"

    def may(self, *wanted: str) -> bool:
        return self.capabilities.issuperset(wanted)
