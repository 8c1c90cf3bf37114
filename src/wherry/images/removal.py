"""Untagging and deleting images, with docker's rules of what may go and what it says when something may not."""

from collections.abc import Callable

from wherry.errors import Conflict
from wherry.images.image import Image, InUse, Removed
from wherry.images.layers import Layers
from wherry.images.records import Records
from wherry.spec.digest import Digest
from wherry.spec.reference import Reference, parse_reference


class _DeleteConflict(Conflict):
    """Why an image cannot be deleted. `used`: by a container (else by other images or names)."""

    def __init__(self, image: Digest, reason: str, *, hard: bool = False, used: bool = False) -> None:
        force = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {_short(image)} ({force}) - {reason}", object=image)
        self.used = used


class Remover:
    """One removal: `done` collects what happened, in docker's order, also when it ends in an error."""

    def __init__(self, records: Records, layers: Layers, in_use: InUse) -> None:
        self._records = records
        self._layers = layers
        self._in_use = in_use
        self.done: list[Removed] = []

    def remove(self, text: str, *, force: bool, prune_parents: bool) -> None:
        """Remove a name, and the image when that was its last; by id: the image, if it has at most one name."""
        image = self._records.find(text)
        quiet = False
        if image.id.removeprefix("sha256:").startswith(text.removeprefix("sha256:")):
            if _is_single(image.names):
                self._check(image, force=force, references=False)
                for name in image.names:
                    self._untag(image.id, name)
        else:
            if not force and _is_single(image.names) and (users := self._in_use(image.id)):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{text}" (must force) - container '
                    f"{_short(users[0].container)} is using its referenced image {_short(image.id)}",
                    object=text,
                )
            if self._remove_name(image, parse_reference(text)):
                return
            quiet = True
        self.delete(image.id, force=force, prune_parents=prune_parents, quiet=quiet)

    def delete(self, id: Digest, *, force: bool, prune_parents: bool, quiet: bool) -> None:
        """Delete an image and the layers only it has; `quiet`: a name went already, so not deleting is no failure."""
        image = self._records.get(id)
        if image is None:
            return
        try:
            self._check(image, force=force, references=True)
        except _DeleteConflict as conflict:
            dangling = not image.names and not self._records.children(id)
            if quiet and (not dangling or conflict.used):
                return
            raise
        for name in image.names:
            self._untag(id, name)
        self._records.delete(id)
        self.done.append(Removed(id, deleted=id))
        needed = self._records.chains()
        for chain, size in self._layers.remove(image.layers, needed.__contains__):
            self.done.append(Removed(id, deleted=chain, size=size))
        if prune_parents and image.parent:
            self.delete(image.parent, force=False, prune_parents=True, quiet=True)

    def prune(self, *, dangling_only: bool, select: Callable[[Image], bool]) -> None:
        """Delete every image no container uses: the dangling ones, or all."""
        for image in self._records.all():
            current = self._records.get(image.id)
            if current is None or self._in_use(image.id) or not select(current) or self._records.children(image.id):
                continue
            if not current.names or not dangling_only:
                self.delete(image.id, force=True, prune_parents=True, quiet=True)

    def _remove_name(self, image: Image, wanted: Reference) -> bool:
        """Untag; True when the image keeps other names. Digests go with the last tag of their repository."""
        name = wanted.without_tag() if wanted.digest else wanted.tagged()
        self._untag(image.id, name)
        left = [other for other in image.names if other != name]
        if name.digest is None and not any(other.tag and other.name == name.name for other in left):
            for other in [other for other in left if other.name == name.name]:
                self._untag(image.id, other)
                left.remove(other)
        return bool(left)

    def _untag(self, image: Digest, name: Reference) -> None:
        self._records.unname(name)
        self.done.append(Removed(image, untagged=name.familiar))

    def _check(self, image: Image, *, force: bool, references: bool) -> None:
        if self._records.children(image.id):
            raise _DeleteConflict(image.id, "image has dependent child images", hard=True)
        users = self._in_use(image.id)
        if running := next((use for use in users if use.running), None):
            reason = f"image is being used by running container {_short(running.container)}"
            raise _DeleteConflict(image.id, reason, hard=True, used=True)
        if force:
            return
        if references and image.names:
            raise _DeleteConflict(image.id, "image is referenced in multiple repositories")
        if users:
            reason = f"image is being used by stopped container {_short(users[0].container)}"
            raise _DeleteConflict(image.id, reason, used=True)


def _is_single(names: tuple[Reference, ...]) -> bool:
    """Whether the names amount to one: at most one tag, and digests only of the same repository."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if name.tag]
    if len(tags) > 1:
        return False
    repositories = {name.name for name in names if name.digest}
    single = tags[0] if tags else names[0]
    return repositories == {single.name}


def _short(id: str) -> str:
    return id.removeprefix("sha256:")[:12]
