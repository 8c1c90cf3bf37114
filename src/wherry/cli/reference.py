"""Names of images, as far as the client needs them: defaults added, the familiar form, which registry."""

from __future__ import annotations

from wherry.errors import InvalidArgument

_INDEX = "https://index.docker.io/v1/"


def split(image: str) -> tuple[str, str, str, str]:
    """(domain, path, tag, digest); domain docker.io and path library/... where the name leaves them out."""
    rest, _, digest = image.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    first, slash, path = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        first, path = "docker.io", name
    if first in ("docker.io", "index.docker.io"):
        first = "docker.io"
        path = path if "/" in path else f"library/{path}"
    return first, path, tag, digest


def check(image: str) -> None:
    """Raises InvalidArgument for what can be no image."""
    _, path, _, _ = split(image)
    if not path or path.endswith("/") or " " in image:
        raise InvalidArgument("invalid reference format")
    if path != path.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")


def familiar(image: str) -> str:
    """With the tag spelled out: `busybox` -> `busybox:latest`."""
    domain, path, tag, digest = split(image)
    name = path.removeprefix("library/") if domain == "docker.io" else f"{domain}/{path}"
    if digest:
        return f"{name}:{tag}@{digest}" if tag else f"{name}@{digest}"
    return f"{name}:{tag or 'latest'}"


def registry_key(image: str) -> str:
    """The key of the image's registry in config.json's `auths`."""
    domain = split(image)[0]
    return _INDEX if domain == "docker.io" else domain
