"""A directory or file inside a stack of layers, as something to mount: the lower directories that show just it.

The path is a real one (no links in it); each layer is looked at without following any.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True)
class LayerView:
    """`directories`, top first: an overlay of them is the directory; or `file`: the one file itself."""

    directories: tuple[str, ...] = ()
    file: str = ""


def view(layers: Sequence[str], real: str) -> LayerView | None:
    """None where there is nothing at `real`."""
    parts = [part for part in real.split("/") if part]
    found: list[str] = []
    for layer in layers:
        path, stop = layer, False
        for part in parts:
            stop = stop or _is_opaque(path)
            path = f"{path}/{part}"
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                path = ""
                break
            if not stat.S_ISDIR(status.st_mode):
                last = path.count("/") == layer.count("/") + len(parts)
                if not found and last and stat.S_ISREG(status.st_mode):
                    return LayerView(file=path)
                return LayerView(tuple(found)) if found else None
        if path:
            found.append(path)
            stop = stop or _is_opaque(path)
        if stop:
            break
    return LayerView(tuple(found)) if found else None


def find(layers: Sequence[str], path: str) -> os.stat_result | None:
    """What is at `path` (relative, links not followed) in the whole tree: None for nothing.

    LookupError when a link is on the way: then only a mount of the layers can tell. Without a mount, which costs
    more than all of a short step besides: closing one waits for the kernel to be done with it.
    """
    parts = [part for part in path.split("/") if part]
    hidden = len(layers)
    for number, layer in enumerate(layers):
        if number >= hidden:
            break
        here = layer
        for count, part in enumerate(parts, 1):
            if _is_opaque(here):
                hidden = number + 1
            here = f"{here}/{part}"
            try:
                status = os.lstat(here)
            except FileNotFoundError:
                break
            if stat.S_ISLNK(status.st_mode):
                raise LookupError(here)
            if stat.S_ISCHR(status.st_mode) and not status.st_rdev:
                return None
            if count == len(parts):
                return status
            if not stat.S_ISDIR(status.st_mode):
                return None
    return None


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
