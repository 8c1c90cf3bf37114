"""Volumes that a plugin keeps: docker's volume plugin protocol (plugins_volume.md).

A plugin is believed about its own volumes, but not with our time, and not about where it mounted one before that has
been looked at.
"""

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wherry.errors import FailedPrecondition, Internal, NotFound, Unavailable, WherryError
from wherry.plugins import Plugin
from wherry.volumes._driver import Found

# docker's are one and two minutes; nobody waits that long for a listing.
SHORT, LONG = 15.0, 120.0
_ABSENT = ("no such volume", "not found", "does not exist", "doesn't exist")


class RemoteDriver:
    """See `Driver`."""

    def __init__(self, plugin: Plugin, short: float = SHORT, long: float = LONG) -> None:
        self.name = plugin.name
        self._plugin, self._short, self._long = plugin, short, long
        self.scope = self._scope()

    def create(self, name: str, options: Mapping[str, str]) -> None:
        if not self._there(name):
            self._call("Create", self._long, Name=name, Opts=dict(options) or None)

    def get(self, name: str) -> Found:
        try:
            answer = self._call("Get", self._short, Name=name)
        except Internal as error:
            # The protocol has no word for it: whatever the refusal says, there is no volume to be had.
            raise NotFound(f"get {name}: {error.message}", object=name) from None
        return self._found(answer.get("Volume"), name)

    def list(self) -> list[Found]:
        answer = self._call("List", self._short)
        volumes = answer.get("Volumes") or []
        if not isinstance(volumes, list):
            raise self._malformed("List")
        return [self._found(volume) for volume in volumes]

    def mount(self, name: str, user: str) -> Path:
        answer = self._call("Mount", self._long, Name=name, ID=user)
        try:
            return self._checked(name, answer.get("Mountpoint"))
        except WherryError:
            self.unmount(name, user)
            raise

    def unmount(self, name: str, user: str) -> None:
        self._call("Unmount", self._long, Name=name, ID=user)

    def remove(self, name: str) -> None:
        if self._there(name):
            self._call("Remove", self._long, Name=name)

    def _there(self, name: str) -> bool:
        try:
            self.get(name)
        except NotFound:
            return False
        return True

    def _scope(self) -> str:
        try:
            answer = self._call("Capabilities", self._short)
        except Internal:
            # Older plugins do not know the question.
            return "local"
        told = answer.get("Capabilities")
        scope = str(told.get("Scope", "")).lower() if isinstance(told, dict) else ""
        return scope if scope in ("local", "global") else "local"

    def _call(self, method: str, timeout: float, **body: Any) -> dict[str, Any]:
        full = f"VolumeDriver.{method}"
        try:
            answer = self._plugin.call(full, body, timeout=timeout)
        except Internal as error:
            words = error.message.removeprefix(f"plugin {self.name}: {full}: ").removeprefix("status 500: ")
            raise Internal(f"{full}: {words}", object=self.name) from None
        if not isinstance(answer, dict):
            raise self._malformed(method)
        return answer

    def _malformed(self, method: str) -> Unavailable:
        return Unavailable(f"plugin {self.name}: VolumeDriver.{method}: its answer makes no sense", object=self.name)

    def _found(self, told: Any, name: str | None = None) -> Found:
        if not isinstance(told, dict) or not isinstance(told.get("Name"), str) or not told["Name"]:
            raise self._malformed("Get" if name else "List")
        if name is not None and told["Name"] != name:
            raise self._malformed("Get")
        status, created = told.get("Status"), told.get("CreatedAt")
        return Found(
            told["Name"],
            str(told.get("Mountpoint") or ""),
            created if isinstance(created, str) else "",
            status if isinstance(status, dict) else None,
        )

    def _checked(self, name: str, path: Any) -> Path:
        """FailedPrecondition when what the plugin calls a mount point is none."""
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise self._refused(name, path, "it is not an absolute path")
        clean = posixpath.normpath(path)
        if clean.lstrip("/") == "" or ".." in path.split("/"):
            raise self._refused(name, path, "it is not a place of a volume")
        if os.path.realpath(clean).split("/")[1] in ("proc", "sys", "dev"):
            raise self._refused(name, path, "it is a file system of the kernel")
        if not os.path.exists(clean):
            raise self._refused(name, path, "there is nothing on this host")
        return Path(clean)

    def _refused(self, name: str, path: Any, why: str) -> FailedPrecondition:
        message = f"error while mounting volume '{name}': VolumeDriver.Mount: plugin {self.name} says it is at {path!r}"
        return FailedPrecondition(f"{message}, but {why}", object=name)
