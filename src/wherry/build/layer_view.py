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


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
