"""Containers by id, by name and by unique prefix of an id."""

import re
from collections.abc import Iterator

from wherry.engine.container import Container
from wherry.errors import Conflict, InvalidArgument, NotFound

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Index:
    """Every container known, and every name taken. Only the loop's thread touches it."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def get(self, id: str) -> Container | None:
        """By full id."""
        return self._by_id.get(id)

    def ids(self) -> set[str]:
        """Of all there are, and of those that are being made."""
        return {*self._by_id, *self._names.values()}

    def add(self, container: Container) -> None:
        """Make it known under its name, which must have been reserved."""
        self._by_id[container.id] = container
        self._names[container.name] = container.id

    def remove(self, container: Container) -> None:
        """Forget it and its name."""
        self._by_id.pop(container.id, None)
        self.free(container.name, container.id)

    def reserve(self, name: str, id: str) -> None:
        """Take a name for a container that is being made; Conflict when it is taken."""
        holder = self._names.setdefault(name, id)
        if holder != id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". You have to '
                "remove (or rename) that container to be able to reuse that name.",
                object=name,
            )

    def taken(self, name: str) -> bool:
        """Whether a name is in use."""
        return name in self._names

    def free(self, name: str, id: str) -> None:
        """Give a name back, if `id` holds it."""
        if self._names.get(name) == id:
            del self._names[name]

    def find(self, reference: str) -> Container:
        """By full id, then name, then unique prefix; NotFound, InvalidArgument when several fit."""
        found = self._by_id.get(reference)
        if found is None:
            named = self._names.get(reference.removeprefix("/"))
            found = self._by_id.get(named) if named else None
        if found is not None:
            return found
        matches = [id for id in self._by_id if id.startswith(reference)] if reference else []
        if len(matches) == 1:
            return self._by_id[matches[0]]
        if matches:
            raise InvalidArgument(
                f"Multiple IDs found with provided prefix: {reference}", object=reference, hint="give more of the id"
            )
        raise NotFound(f"No such container: {reference}", object=reference)


def check_name(name: str) -> str:
    """A user's name without its leading slash; InvalidArgument when docker would not take it."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", object=name
        )
    return name.removeprefix("/")
