"""What happened: docker's events, kept for a while and given to those who subscribe."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any


class Events:
    """A bounded history and the live stream."""

    def emit(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Publish one: `type` "container", "image", "network", "volume"...; called on the loop's thread."""
        raise NotImplementedError

    def subscribe(
        self,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Docker's event documents; times are Unix seconds. Registered at the call; ends when `until` is past."""
        raise NotImplementedError
