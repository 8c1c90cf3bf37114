"""Images as the API shows them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from wherry.errors import InvalidArgument
from wherry.images import unix_seconds
from wherry.spec.decode import encode

if TYPE_CHECKING:
    from wherry.images import Image

FILTERS = frozenset(("dangling", "label", "before", "since", "until", "reference"))


def summary(image: "Image", containers: int) -> dict[str, Any]:
    """One element of `GET /images/json`."""
    return {
        "Containers": containers,
        "Created": created_seconds(image),
        "Id": image.id,
        "Labels": dict(image.config.config.labels) or None,
        "ParentId": image.parent or "",
        "RepoDigests": list(image.digests),
        "RepoTags": list(image.references),
        "SharedSize": -1,
        "Size": image.size,
    }


def inspect_document(image: "Image", version: tuple[int, ...]) -> dict[str, Any]:
    """`GET /images/{name}/json`."""
    config = image.config
    document: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.references),
        "RepoDigests": list(image.digests),
        "Parent": image.parent or "",
        "Comment": config.comment,
        "Created": config.created or "0001-01-01T00:00:00Z",
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Architecture": config.architecture,
        "Os": config.os or "linux",
        "Size": image.size,
        "GraphDriver": {"Data": None, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": _tag_time(image.tagged_ns)},
        "Config": _run_config(image, version),
    }
    if config.variant:
        document["Variant"] = config.variant
    if config.os_version:
        document["OsVersion"] = config.os_version
    if version < (1, 44):
        document["VirtualSize"] = image.size
    if version >= (1, 52):
        for name in ("Parent", "Comment", "DockerVersion", "Author"):
            if not document[name]:
                del document[name]
    return document


_ALWAYS = ("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir")
_OLD: Mapping[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}


def _run_config(image: "Image", version: tuple[int, ...]) -> dict[str, Any]:
    config = image.config.config
    found = {name: value for name, value in encode(config).items() if value or (name == "Cmd" and value == [])}
    if config.healthcheck is not None:
        found["Healthcheck"] = {name: value for name, value in encode(config.healthcheck).items() if value}
    if version < (1, 52):
        for name in _ALWAYS:
            found.setdefault(name, "" if name in ("User", "WorkingDir") else None)
    if version < (1, 50):
        found = {**_OLD, **found}
    return dict(sorted(found.items()))


def _tag_time(tagged_ns: int) -> str:
    if not tagged_ns:
        return "0001-01-01T00:00:00Z"
    seconds, nanoseconds = divmod(tagged_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{nanoseconds:09d}Z"


def created_seconds(image: "Image") -> int:
    """When it was made, in Unix seconds."""
    return unix_seconds(image.created)


def select(images: Iterable["Image"], filters: Mapping[str, list[str]], moments: Mapping[str, int]) -> list["Image"]:
    """Those that pass all filters. `moments`: the times that before, since and until stand for."""
    for name in filters:
        if name not in FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
    dangling = _boolean(filters, "dangling")
    return [
        image
        for image in images
        if (dangling is None or dangling == (not image.references and not image.digests))
        and _labels_match(image, filters.get("label") or ())
        and _in_time(created_seconds(image), moments)
        and _name_matches(image, filters.get("reference") or ())
    ]


def _boolean(filters: Mapping[str, list[str]], name: str) -> bool | None:
    values = filters.get(name)
    if not values:
        return None
    if len(values) > 1 or values[0].lower() not in ("1", "0", "true", "false", "t", "f"):
        raise InvalidArgument(f"invalid filter '{name}={values}'")
    return values[0].lower() in ("1", "true", "t")


def _labels_match(image: "Image", wanted: Iterable[str]) -> bool:
    labels = image.config.config.labels
    for item in wanted:
        name, equals, value = item.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def _in_time(created: int, moments: Mapping[str, int]) -> bool:
    if "before" in moments and not created < moments["before"]:
        return False
    if "until" in moments and not created < moments["until"]:
        return False
    return "since" not in moments or created > moments["since"]


def _name_matches(image: "Image", patterns: Iterable[str]) -> bool:
    patterns = list(patterns)
    if not patterns:
        return True
    names = [*image.references, *image.digests]
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(_without_tag(name), pattern) for pattern in patterns for name in names
    )


def _without_tag(name: str) -> str:
    name = name.partition("@")[0]
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name
