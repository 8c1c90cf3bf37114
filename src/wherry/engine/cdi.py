"""CDI devices of this machine: found in the directories of specifications, asked for by name.

Directories are read when somebody asks for a device (and for GET /info), never for other containers; a file that is
unchanged is not parsed again. A directory named later goes before an earlier one; a device that two files of one
directory define is nobody's (the CDI library's rules, and so docker's). A file that is wrong takes only itself away.
"""

import json
import logging
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.engine.resources import describe_device
from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.spec.cdi import DeviceNode, Document, Edits, parse

log = logging.getLogger(__name__)
_MAX_FILE = 16 << 20
_SUFFIXES = (".json", ".yaml", ".yml")


class Registry:
    """What is defined in `directories`, the last of which counts most. To be used in threads."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)
        self._read: dict[Path, tuple[tuple[int, int, int], Document | None]] = {}

    def names(self) -> list[str]:
        """Every device, "vendor.com/class=name", sorted."""
        return sorted(self._devices())

    def edits(self, names: Iterable[str]) -> Edits:
        """What a container that asks for these devices gets: each file's own edits once, then each device's.

        FailedPrecondition names those that are not defined.
        """
        wanted = list(dict.fromkeys(names))
        devices = self._devices()
        missing = [name for name in wanted if name not in devices]
        if missing:
            raise FailedPrecondition(
                f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}", object=missing[0]
            )
        found = Edits()
        seen: set[int] = set()
        for name in wanted:
            document, device = devices[name]
            if id(document) not in seen:
                seen.add(id(document))
                found = found.plus(document.edits)
            found = found.plus(device)
        return found

    def has_kind(self, kind: str) -> bool:
        """Whether any device of a kind is defined."""
        return any(name.startswith(f"{kind}=") for name in self._devices())

    def _devices(self) -> dict[str, tuple[Document, Edits]]:
        found: dict[str, tuple[Document, Edits]] = {}
        for directory in self.directories:
            here: dict[str, tuple[Document, Edits]] = {}
            contested: set[str] = set()
            for document in self._documents(directory):
                for name, edits in document.devices.items():
                    full = f"{document.kind}={name}"
                    if full in here:
                        contested.add(full)
                    here[full] = (document, edits)
            for name in contested:
                log.warning("the CDI device %s is defined twice in %s, so it cannot be had", name, directory)
            found.update(here)
            found = {name: value for name, value in found.items() if name not in contested}
        return found

    def _documents(self, directory: Path) -> list[Document]:
        try:
            paths = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES)
        except (FileNotFoundError, NotADirectoryError):
            return []
        documents = (self._document(path) for path in paths)
        return [document for document in documents if document is not None]

    def _document(self, path: Path) -> Document | None:
        try:
            status = path.stat()
            mark = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._read.get(path)
            if known is not None and known[0] == mark:
                return known[1]
            document = _parse_file(path, status)
        except (InvalidArgument, OSError) as error:
            log.warning("the CDI specification %s is left out: %s", path, error)
            document = None
        self._read[path] = (mark, document)
        return document


def _parse_file(path: Path, status: os.stat_result) -> Document:
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
        raise InvalidArgument("it is no file, or too large")
    text = path.read_text()
    try:
        return parse(json.loads(text) if path.suffix == ".json" else _load_yaml(text))
    except ValueError as error:
        raise InvalidArgument(f"it cannot be read: {error}") from None


def _load_yaml(text: str) -> object:
    import yaml  # a tenth of a second, and only vendors' files are written in it

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def apply(document: dict[str, Any], edits: Edits, *, privileged: bool) -> None:
    """Add `edits` to a container's configuration (runtime-spec). FailedPrecondition: what they name is not there."""
    process, linux = document["process"], document["linux"]
    given = {item.partition("=")[0] for item in edits.env}
    process["env"] = [item for item in process["env"] if item.partition("=")[0] not in given] + list(edits.env)
    user = process["user"]
    user["additionalGids"] = list(dict.fromkeys((*user["additionalGids"], *edits.gids)))
    targets = {mount["destination"] for mount in edits.mounts}
    kept = [mount for mount in document["mounts"] if mount["destination"] not in targets]
    document["mounts"] = kept + sorted(edits.mounts, key=lambda mount: mount["destination"].count("/"))
    for hook in edits.hooks:
        document.setdefault("hooks", {}).setdefault(hook.name, []).append(dict(hook.document))
    devices = {device["path"]: device for device in linux.get("devices", ())}
    for node in edits.devices:
        device = _device(node, user)
        devices[node.path] = device
        if not privileged and node.permissions and device["type"] in ("b", "c"):
            rule = {key: device[key] for key in ("type", "major", "minor")}
            linux["resources"]["devices"].append({"allow": True, **rule, "access": node.permissions})
    if devices:
        linux["devices"] = list(devices.values())


def _device(node: DeviceNode, user: Mapping[str, Any]) -> dict[str, Any]:
    complete = node.kind and (node.kind == "p" or (node.major is not None and node.minor is not None))
    if complete:
        device = {"path": node.path, "type": node.kind, "major": node.major or 0, "minor": node.minor or 0}
        device |= {"fileMode": 0o666, "uid": 0, "gid": 0}
    else:
        device = describe_device(node.host_path, node.path)
        if node.kind and node.kind.replace("u", "c") != device["type"]:
            raise FailedPrecondition(f"CDI device injection failed: {node.host_path} is not of type {node.kind}")
    for key, value, own in (("uid", node.uid, user["uid"]), ("gid", node.gid, user["gid"])):
        # Without an owner of its own it is the container's user's.
        device[key] = value if value is not None else own or device[key]
    if node.mode is not None:
        device["fileMode"] = node.mode & 0o7777
    return device
