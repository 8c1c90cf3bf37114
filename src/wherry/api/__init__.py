"""The Docker Engine HTTP API: translation only, between HTTP and `wherry.engine`."""

from wherry.api.server import Api

__all__ = ["Api"]
