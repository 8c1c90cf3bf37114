"""An image as the rest of Wherry sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from wherry.spec.digest import ChainID, DiffID, Digest
from wherry.spec.oci_image import Descriptor, ImageConfig
from wherry.spec.platform import Platform
from wherry.spec.reference import Reference


class Layer(NamedTuple):
    """One layer of an image: what it is uncompressed, and the blob it came as."""

    diff_id: DiffID
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Image:
    """One image. `id` is its configuration's digest; it may have several names, or none (then it is dangling).

    `layers` are the chain ids, bottom first; `chain` is the top one, None for an image without layers (scratch).
    `size` is the sum of the layers' sizes unpacked, in bytes. `tagged_ns`: when it last got a tag, 0 for never.
    """

    id: Digest
    config: ImageConfig
    names: tuple[Reference, ...]
    layers: tuple[ChainID, ...]
    size: int
    parent: Digest | None
    tagged_ns: int
    sources: tuple[Layer, ...]
    manifest: Digest | None

    @property
    def references(self) -> tuple[str, ...]:
        """RepoTags, as docker shows them: ("busybox:latest",)."""
        return tuple(name.familiar for name in self.names if name.digest is None)

    @property
    def digests(self) -> tuple[str, ...]:
        """RepoDigests, as docker shows them: ("busybox@sha256:...",)."""
        return tuple(name.familiar for name in self.names if name.digest is not None)

    @property
    def chain(self) -> ChainID | None:
        return self.layers[-1] if self.layers else None

    @property
    def created(self) -> str | None:
        """RFC 3339, or None where the image does not say."""
        return self.config.created

    @property
    def platform(self) -> Platform:
        return self.config.platform

    @property
    def os(self) -> str:
        return self.config.os or "linux"

    @property
    def architecture(self) -> str:
        return self.config.architecture

    @property
    def variant(self) -> str:
        return self.config.variant


class HistoryEntry(NamedTuple):
    """One step of an image's history, as docker's API has it: `created` in seconds since 1970."""

    id: str
    created: int
    created_by: str
    tags: tuple[str, ...] | None
    size: int
    comment: str


class Removed(NamedTuple):
    """One thing a removal did: a name untagged, or an image or layer deleted (`size` bytes freed, for a layer)."""

    image: Digest
    untagged: str | None = None
    deleted: str | None = None
    size: int = 0


class Use(NamedTuple):
    """A container that stands on an image."""

    container: str
    running: bool


InUse = Callable[[Digest], list[Use]]


def unix_seconds(time: str | None) -> int:
    """An RFC 3339 time (nine decimals or none) in seconds since 1970; 0 for none or for what is no time.

    Years before 1970 are negative, as docker's own "0001-01-01T00:00:00Z" is.
    """
    if not time:
        return 0
    try:
        parsed = datetime.fromisoformat(time.replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        return 0
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def now_rfc3339(time_ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339, as Go writes it: trailing zeros dropped."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return f"{text}{fraction}Z"
