"""Images as an attacker makes them: any file, any layer, any name inside the archive."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon import busybox_tar

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"", mode: int = 0o755) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def directory(name: str, mode: int = 0o755) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info, b""


def program(name: str, path: Path) -> Member:
    return file(name, path.read_bytes())


def tar(members: Sequence[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def archive(name: str, layers: Sequence[Sequence[Member]], extra: Sequence[Member] = (), **config: Any) -> bytes:
    """A `docker save` archive: busybox, then `layers`; `extra` members come before all others."""
    tars = [busybox_tar().read_bytes(), *(tar(layer) for layer in layers)]
    diff_ids = ["sha256:" + hashlib.sha256(data).hexdigest() for data in tars]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin:/sbin:/usr/bin"], **config},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    members = [*extra, file("config.json", json.dumps(document).encode())]
    members += [file(f"{number}/layer.tar", data) for number, data in enumerate(tars)]
    manifest = [
        {
            "Config": "config.json",
            "RepoTags": [f"{name}:latest"],
            "Layers": [f"{number}/layer.tar" for number in range(len(tars))],
        }
    ]
    return tar([*members, file("manifest.json", json.dumps(manifest).encode())])
