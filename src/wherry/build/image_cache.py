"""Images named as cache (`cachefrom`): which of their layers are the results of a build's steps.

A layer is a step's when everything before it is the same (the tree below and the words of the history), its own words
are, and what those words do not tell is shown otherwise: of what is copied the files are compared once they are
written, and a command that sees files by a mount, or a program of its own, is never taken from an image.
"""

import os
import stat
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from wherry.build.cache import CacheRecord
from wherry.build.graph import Copy, MakeDirectory, Node, Plan, Run
from wherry.build.trees import Entry, SourceTree, digest_entries
from wherry.images.image import Image, Layer
from wherry.spec.digest import ChainID
from wherry.spec.oci_image import History


class Candidate(NamedTuple):
    """An image's layer that may be a step's result."""

    parent: ChainID | None
    chain: ChainID
    layer: Layer
    step: History


class ImageCache:
    """For one build. What it gives is in no store: every build asks the images again, which own the layers."""

    def __init__(self, plan: Plan | None = None, images: Sequence[Image] = ()) -> None:
        self._found: dict[int, list[Candidate]] = {}
        self.name = " ".join(image.id for image in images)
        for image in images if plan is not None else ():
            assert plan is not None
            self._read(plan, image)

    def _read(self, plan: Plan, image: Image) -> None:
        wanted: list[tuple[str | None, bool, Node | None]] = [
            (step.created_by, step.empty_layer, None) for step in plan.config.history
        ]
        wanted += [(step.created_by, step.node is None, step.node) for step in plan.steps]
        count = 0
        for (words, empty, node), step in zip(wanted, image.config.history, strict=False):
            if (words, empty) != (step.created_by, step.empty_layer) or (not empty and count >= len(image.layers)):
                return
            if node is not None:
                parent = image.layers[count - 1] if count else None
                candidate = Candidate(parent, image.layers[count], image.sources[count], step)
                self._found.setdefault(id(node), []).append(candidate)
            count += not empty

    def candidates(self, node: Node, parent: ChainID | None) -> list[Candidate]:
        """What `node` may have made on `parent`."""
        return [found for found in self._found.get(id(node), ()) if found.parent == parent]


def told_by_words(node: Node) -> bool:
    """Whether the words of a step's history tell its whole result."""
    operation = node.operation
    if isinstance(operation, Run):
        return not operation.mounts and operation.script is None
    return isinstance(operation, MakeDirectory)


def compared(node: Node) -> bool:
    """Whether a step's result is compared with an image's once it is written."""
    return isinstance(node.operation, Copy) and not node.operation.link


def record(key: str, node: Node, candidate: Candidate, size: int) -> CacheRecord:
    """A candidate as a step's result, made when the image says; `size` of its files in bytes."""
    made = _nanoseconds(candidate.step.created)
    layer = candidate.layer
    return CacheRecord(
        key=key,
        chain=candidate.chain,
        parent=candidate.parent,
        diff_id=layer.diff_id,
        size=size,
        packed=layer.blob.size,
        created_ns=made,
        used_ns=made,
        uses=1,
        title=node.title,
        blob=layer.blob,
    )


def same_files(one: str, other: str) -> bool:
    """Whether two layers' directories hold the same, times aside. In a thread."""
    return _digest(one) == _digest(other)


def _digest(path: str) -> str:
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = SourceTree(root, "a layer")
        entries = list(tree.entries(b""))
        hidden = [entry.name for entry in entries if stat.S_ISDIR(entry.status.st_mode) and _is_opaque(path, entry)]
        return f"{digest_entries(tree, iter(entries), top=True)} {hidden}"
    finally:
        os.close(root)


def _is_opaque(path: str, entry: Entry) -> bool:
    try:
        attributes = os.listxattr(os.path.join(os.fsencode(path), entry.path), follow_symlinks=False)
    except OSError:
        return False
    return "trusted.overlay.opaque" in attributes


def _nanoseconds(text: str | None) -> int:
    """Exactly: the time becomes part of another image, which is to be the same."""
    whole, _, fraction = (text or "").removesuffix("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
        return seconds * 10**9 + int(f"{fraction:0<9}"[:9])
    except ValueError:
        return 0
