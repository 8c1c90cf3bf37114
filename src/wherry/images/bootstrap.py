"""Base images made from a distribution's own packages, for hosts that reach no registry.

    bootstrap "busybox"            the busybox-static package
    bootstrap "debian:bookworm"    debootstrap from the mirror this host's apt is configured with
    bootstrap "ubuntu:24.04"       debootstrap from Ubuntu's archive

`python -m wherry.images.bootstrap busybox out.tar` writes just the root file system.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from wherry.errors import InvalidArgument
from wherry.images.busybox import make_busybox
from wherry.images.debootstrap import make_debian
from wherry.images.suites import find_suite
from wherry.spec.oci_image import RunConfig
from wherry.spec.reference import DEFAULT_DOMAIN, Reference, parse_reference

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BaseImage(NamedTuple):
    """What a base image runs by default, and how its root file system is made: `make(scratch, out, progress)`."""

    config: RunConfig
    message: str
    make: Callable[[Path, BinaryIO, Callable[[dict[str, Any]], None]], None]


def plan(reference: Reference) -> BaseImage:
    """How to make `reference`; InvalidArgument when Wherry does not know that distribution or release."""
    name, tag = reference.path.removeprefix("library/"), reference.tagged().tag or "latest"
    if reference.domain != DEFAULT_DOMAIN or not reference.path.startswith("library/") or reference.digest:
        raise _unknown(reference)
    if name == "busybox":
        if tag not in ("latest", "stable", "musl", "glibc", "uclibc"):
            raise _unknown(reference)
        config = RunConfig(env=(_PATH,), cmd=("sh",))
        return BaseImage(config, "busybox-static", lambda scratch, out, progress: make_busybox(scratch, out))
    suite = find_suite(name, tag)
    if suite is None:
        raise _unknown(reference)
    config = RunConfig(env=(_PATH,), cmd=("bash",) if name == "debian" else ("/bin/bash",))
    return BaseImage(
        config,
        f"debootstrap --variant=minbase {suite.codename}",
        lambda scratch, out, progress: make_debian(suite, scratch, out, progress),
    )


def _unknown(reference: Reference) -> InvalidArgument:
    return InvalidArgument(
        f"cannot bootstrap {reference.familiar}",
        object=reference.familiar,
        hint="known: debian:<release>, debian:<release>-slim, ubuntu:<release>, busybox",
    )


def main(arguments: list[str]) -> int:
    """Write the root file system of a base image as a tar."""
    if len(arguments) != 2:
        print("usage: python -m wherry.images.bootstrap IMAGE OUT.tar", file=sys.stderr)
        return 2
    base = plan(parse_reference(arguments[0]))
    with tempfile.TemporaryDirectory(prefix="wherry-bootstrap-") as scratch, Path(arguments[1]).open("wb") as out:
        base.make(Path(scratch), out, lambda message: print(message.get("status", ""), file=sys.stderr))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
