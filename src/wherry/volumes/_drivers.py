"""The drivers there are: the local one, and every announced plugin that serves volumes."""

from collections.abc import Iterator
from threading import Lock

from wherry.errors import FailedPrecondition, NotFound, WherryError
from wherry.plugins import Address, Places, activate, announced, discover
from wherry.volumes._driver import Driver
from wherry.volumes._remote import LONG, SHORT, RemoteDriver

_PATIENCE = 5.0


class Drivers:
    """Found by name, and kept once they have shaken hands at the address they were found at."""

    def __init__(self, local: Driver, places: Places | None = None, short: float = SHORT, long: float = LONG) -> None:
        self._local, self._places = local, places
        self._limits = (short, long)
        self._lock = Lock()
        self._known: dict[Address, RemoteDriver | None] = {}

    def get(self, name: str) -> Driver:
        """NotFound, in docker's words, when there is none of this name."""
        if name in ("", self._local.name):
            return self._local
        try:
            found = self._reach(discover(name, self._places), _PATIENCE)
        except (NotFound, FailedPrecondition) as error:
            raise NotFound(f"error looking up volume plugin {name}: {error.message}", object=name) from None
        if found is None:
            message = f'error looking up volume plugin {name}: plugin "{name}" does not implement "VolumeDriver"'
            raise NotFound(message, object=name)
        return found

    def remote(self, failures: list[str]) -> Iterator[Driver]:
        """All plugins that serve volumes; why one could not be asked is added to `failures`."""
        for name in announced(self._places):
            try:
                found = self._reach(discover(name, self._places), 0)
            except WherryError as error:
                failures.append(f'error while listing volumes from driver "{name}": {error.message}')
                continue
            if found is not None:
                yield found

    def _reach(self, address: Address, patience: float) -> RemoteDriver | None:
        if address in self._known:
            return self._known[address]
        try:
            plugin = activate(address, "VolumeDriver", patience=patience)
        except FailedPrecondition:
            found = None
        else:
            found = RemoteDriver(plugin, *self._limits)
        with self._lock:
            # None of the kept ones is of an address that is not announced any more for long: the name finds another.
            self._known = {known: driver for known, driver in self._known.items() if known.name != address.name}
            self._known[address] = found
        return found
