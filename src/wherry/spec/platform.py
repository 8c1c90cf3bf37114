"""Platforms: what an image was built for, and which of several fits a machine best.

Names are Go's (GOOS, GOARCH, variants), as image-spec's image-index.md has them. Matching goes by preference: an
arm64 machine takes arm64 first, then arm/v8, v7...; an amd64 machine takes amd64, then 386.
"""

import os
import re
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.spec.decode import document, key

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "ppc64el": "ppc64le",
}
_KNOWN_OS = frozenset(("linux", "windows", "darwin", "freebsd", "openbsd", "netbsd", "solaris", "plan9", "aix", "js"))
_PART = re.compile(r"[A-Za-z0-9_.-]+")


@document("camel")
@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """An operating system, an architecture and its variant ("v7"); the variant is "" where there is but one."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""
    os_version: str = key("os.version", "")
    os_features: tuple[str, ...] = key("os.features", ())

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def normalized(self) -> "Platform":
        """Aliases resolved (x86_64 is amd64), default variants spelled one way."""
        architecture = self.architecture.lower()
        variant = self.variant.lower()
        if architecture in ("armel", "armv6l"):
            variant = "v6"
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if architecture == "arm64" and variant in ("8", "v8"):
            variant = ""
        elif architecture == "arm":
            variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        elif architecture == "amd64" and variant == "v1":
            variant = ""
        return Platform(os=self.os.lower(), architecture=architecture, variant=variant, os_version=self.os_version)


def host_platform() -> Platform:
    """This machine's platform."""
    machine = os.uname().machine
    return Platform(os=os.uname().sysname.lower(), architecture=machine).normalized()


def parse_platform(text: str) -> Platform:
    """`os[/architecture[/variant]]`, or an architecture alone; what is left out is this machine's."""
    parts = text.split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(
            f"{text!r} is an invalid platform: it must be of the form os/architecture[/variant]", object=text
        )
    host = host_platform()
    if len(parts) > 1:
        return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) > 2 else "").normalized()
    if parts[0].lower() in _KNOWN_OS:
        same = parts[0].lower() == host.os
        return Platform(os=parts[0].lower(), architecture=host.architecture, variant=host.variant if same else "")
    alone = Platform(os=host.os, architecture=parts[0]).normalized()
    known = {*_ARCHITECTURES.values(), "riscv64", "s390x", "ppc64", "mips64", "mips64le", "mips", "loong64", "wasm"}
    if alone.architecture not in known:
        raise InvalidArgument(f"{text!r}: unknown operating system or architecture", object=text)
    return alone


def preference(wanted: Platform, offered: Platform) -> int | None:
    """How well `offered` serves `wanted`: 0 is best, larger is worse, None not at all."""
    accepted = _accepted(wanted.normalized())
    candidate = offered.normalized()
    for rank, platform in enumerate(accepted):
        if (candidate.os, candidate.architecture, candidate.variant) == platform:
            return rank
    return None


def _accepted(wanted: Platform) -> list[tuple[str, str, str]]:
    name, architecture, variant = wanted.os, wanted.architecture, wanted.variant
    found = [(name, architecture, variant)]
    if architecture == "amd64":
        level = int(variant[1:]) if re.fullmatch(r"v[2-9]", variant) else 1
        found += [(name, "amd64", f"v{lower}" if lower > 1 else "") for lower in range(level - 1, 0, -1)]
        found.append((name, "386", ""))
    elif architecture == "arm64":
        if variant:
            found.append((name, "arm64", ""))
        found += [(name, "arm", f"v{level}") for level in range(8, 4, -1)]
    elif architecture == "arm" and re.fullmatch(r"v[5-8]", variant):
        found += [(name, "arm", f"v{lower}") for lower in range(int(variant[1:]) - 1, 4, -1)]
    return found
