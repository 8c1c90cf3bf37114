from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Put:
    """Set `key` to `value`, replacing what was there."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`; absent is no error."""

    key: str


Change = Put | Delete


class Store(Protocol):
    """An ordered map from path-like keys to bytes. Every method may be called from any thread."""

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""
        ...

    def scan(self, prefix: str) -> list[tuple[str, bytes]]:
        """Every (key, value) whose key starts with `prefix`, in key order, as of one moment."""
        ...

    def write(self, *changes: Change) -> None:
        """Apply all changes, or none. In one batch the last change of a key wins."""
        ...

    def close(self) -> None:
        """Release the store; closing twice is harmless, any other use afterwards raises ValueError."""
        ...
