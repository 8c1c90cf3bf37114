"""A volume's record, and the grammar of its name."""

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wherry.errors import InvalidArgument
from wherry.volumes._driver import Found

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NEVER = "0001-01-01T00:00:00Z"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """`created`: RFC 3339, "" when nobody knows. `mountpoint`: on this host, "" while it is nowhere. `status`: what a
    plugin tells of it."""

    name: str
    created: str
    mountpoint: str
    driver: str = "local"
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    scope: str = "local"
    status: Mapping[str, Any] | None = None

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels

    def to_json(self) -> dict[str, Any]:
        """The Engine API's Volume."""
        status = {} if self.status is None else {"Status": dict(self.status)}
        return {
            "CreatedAt": self.created or _NEVER,
            "Driver": self.driver,
            "Labels": dict(self.labels) or None,
            "Mountpoint": self.mountpoint,
            "Name": self.name,
            "Options": dict(self.options) or None,
            "Scope": self.scope,
            **status,
        }

    def to_bytes(self) -> bytes:
        """For the store; the mount point follows from where the data root is."""
        kept: dict[str, Any] = {"created": self.created, "labels": dict(self.labels), "options": dict(self.options)}
        if self.driver != "local":
            kept |= {"driver": self.driver, "scope": self.scope}
        return json.dumps(kept).encode()

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> "Volume":
        return cls(name=name, mountpoint="", **json.loads(data))

    def seen(self, found: Found) -> "Volume":
        """With what its driver says of it now."""
        created = found.created or self.created
        return replace(self, mountpoint=found.mountpoint, created=created, status=found.status)


def random_name() -> str:
    return secrets.token_hex(32)


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and len(os.fsencode(name)) <= 255


def check_name(name: str) -> None:
    """InvalidArgument, in docker's words, when it cannot name a local volume."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters",
            object=name,
        )
    if not is_name(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
            object=name,
        )
