"""Where a container's output is to be written."""

from wherry.logs.rotation import CACHE, SPOOL, cache_rotation, parse_bool, rotation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.logs.rotation import Rotation

FILES = ("json-file", "local")
"""Drivers whose log is their file."""


class LogTarget:
    """A driver, the file that is written, its options as docker writes them, and what the streams are.

    `path`: the log itself (json-file, local), or the copy from which it is delivered and `logs` reads. `attributes`:
    JSON kept with the records. `cursor`: a file that says how far it is delivered, for drivers that deliver. `info`:
    what remote drivers tell of the container (wherry.logs.info). `stdin_once`: the first attached client that ends its
    input ends the container's.
    """

    __slots__ = ("attributes", "cursor", "driver", "info", "options", "path", "stdin_once", "tty")

    def __init__(
        self,
        driver: str,
        path: str,
        options: "Mapping[str, str]",
        tty: bool = False,
        stdin_once: bool = False,
        attributes: str = "",
        cursor: str = "",
        info: "Mapping[str, Any] | None" = None,
    ) -> None:
        self.driver = driver
        self.path = path
        self.options = dict(options)
        self.tty = tty
        self.stdin_once = stdin_once
        self.attributes = attributes
        self.cursor = cursor
        self.info = dict(info or {})

    @property
    def delivered(self) -> bool:
        """Whether the driver takes the log elsewhere."""
        return self.driver not in FILES and self.driver != "none"

    @property
    def cached(self) -> bool:
        """Whether a copy of what is delivered is kept for `logs`."""
        text = self.options.get("cache-disabled")
        return text is None or not parse_bool("cache-disabled", text)

    def rotation(self) -> "Rotation":
        """How large the file may grow."""
        if not self.delivered:
            return rotation(self.driver, self.options)
        if not self.cached:
            return SPOOL
        # Most name no option for it, and this is asked for at every start.
        return cache_rotation(self.options) if any(name.startswith("cache-") for name in self.options) else CACHE
