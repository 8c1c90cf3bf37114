"""Releases of distributions by the names image tags use: "12", "bookworm", "bookworm-slim", "24.04", "latest"."""

import re
from typing import NamedTuple

# version -> codename. A tag that is a codename itself needs no entry here.
_RELEASES = {
    "debian": {"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky", "latest": "stable"},
    "ubuntu": {
        "20.04": "focal",
        "22.04": "jammy",
        "24.04": "noble",
        "25.10": "questing",
        "26.04": "resolute",
        "latest": "noble",
    },
}
_CODENAME = re.compile(r"[a-z]{3,20}")


class Suite(NamedTuple):
    """One release of one distribution; `slim`: without manuals, documentation and translations."""

    distribution: str
    codename: str
    slim: bool


def find_suite(distribution: str, tag: str) -> Suite | None:
    """The release a tag means, or None when it cannot be one."""
    releases = _RELEASES.get(distribution)
    if releases is None:
        return None
    slim = distribution == "debian" and tag.endswith("-slim")
    tag = tag.removesuffix("-slim") if slim else tag
    codename = releases.get(tag, tag)
    return Suite(distribution, codename, slim) if _CODENAME.fullmatch(codename) else None
