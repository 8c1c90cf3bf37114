"""The Docker Engine HTTP API: translation only, between HTTP and `wherry.engine`."""

from wherry.api.server import Api
from wherry.api.tls import over_tls

__all__ = ["Api", "over_tls"]
