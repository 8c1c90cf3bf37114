"""Image references as people type them, and what they mean: ``[domain/]path[:tag][@digest]``.

The grammar is the one of Docker's clients and of every registry (docker-docs "image tag"; distribution-spec
"Pulling manifests" for the path and the tag). Normalising gives the familiar short forms their full name:

    parse_reference("busybox")            ->  docker.io/library/busybox
    parse_reference("me/app:1")           ->  docker.io/me/app:1
    parse_reference("localhost:5000/app") ->  localhost:5000/app
"""

import re
from dataclasses import dataclass, replace

from wherry.errors import InvalidArgument
from wherry.spec.digest import Digest, parse_digest

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_MAX = 255
_TEXT_MAX = 4096

_HEX_ID = re.compile(r"[a-f0-9]{64}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
_DOMAIN = rf"(?:{_HOST}|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_ONLY_DOMAIN = re.compile(_DOMAIN)
_ONLY_TAG = re.compile(_TAG)


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference: domain and path are always there, tag and digest may be."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The repository with its domain: docker.io/library/busybox."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as docker shows it: busybox."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        # library/a/b is not an official image: without its prefix it would mean another repository.
        return self.path if "/" in short else short

    @property
    def familiar(self) -> str:
        """The whole reference as docker shows it: busybox:latest, me/app@sha256:..."""
        return self.familiar_name + self._suffix()

    def tagged(self) -> "Reference":
        """With the tag "latest" where there is neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")

    def without_tag(self) -> "Reference":
        return replace(self, tag=None)

    def with_tag(self, tag: str) -> "Reference":
        """The same repository under `tag`, without a digest."""
        if not _ONLY_TAG.fullmatch(tag):
            raise InvalidArgument("invalid tag format", object=tag)
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> "Reference":
        """The same repository by digest, without a tag."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """`text` normalised; InvalidArgument with docker's wording when it is no reference."""
    if _HEX_ID.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    if len(text) > _TEXT_MAX:
        raise InvalidArgument("invalid reference format", object=text[:80])
    domain, remainder = _split_domain(text)
    end = re.search(r"[:@]", remainder)
    path = remainder[: end.start()] if end else remainder
    if path.lower() != path:
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase", object=text)
    found = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if found is None:
        raise InvalidArgument("invalid reference format", object=text)
    if len(found["path"]) > _NAME_MAX:
        raise InvalidArgument("repository name must not be more than 255 characters", object=text[:80])
    digest = _parse_digest(found["digest"]) if found["digest"] else None
    return Reference(found["domain"], found["path"], found["tag"], digest)


def is_domain(text: str) -> bool:
    """Whether this is a registry's `host[:port]`."""
    return len(text) <= _NAME_MAX and _ONLY_DOMAIN.fullmatch(text) is not None


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    # What tells a domain from a first path component: a dot, a port, capitals (not allowed in paths), or "localhost".
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, remainder = first, rest
    else:
        domain, remainder = DEFAULT_DOMAIN, text
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder


def _parse_digest(text: str) -> Digest:
    algorithm, _, encoded = text.partition(":")
    if algorithm not in ("sha256", "sha512"):
        raise InvalidArgument("unsupported digest algorithm", object=text)
    if len(encoded) != {"sha256": 64, "sha512": 128}[algorithm]:
        raise InvalidArgument("invalid checksum digest length", object=text)
    if encoded.lower() != encoded:
        raise InvalidArgument("invalid checksum digest format", object=text)
    return parse_digest(text)
