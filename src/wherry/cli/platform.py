"""os[/arch[/variant]] as the API takes it."""

from __future__ import annotations

from wherry.client.codec import dumps
from wherry.errors import InvalidArgument


def encode(text: str) -> str:
    """As a JSON document. Raises InvalidArgument."""
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f'invalid platform: "{text}": use os[/arch[/variant]]')
    if len(parts) == 1:
        raise InvalidArgument(f'invalid platform: "{text}": name the architecture as well, os/arch')
    return dumps(dict(zip(("os", "architecture", "variant"), parts, strict=False)))
