"""`wherry pull`, and the pull that `run` and `create` do."""

from __future__ import annotations

import sys

from wherry.cli import describe, progress
from wherry.cli.credentials import header
from wherry.cli.flags import Command, StatusError
from wherry.cli.reference import check, familiar, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("all-tags", "a", "bool", False, "Download all tagged images in the repository"),
    ("disable-content-trust", "", "bool", True, "Skip verification of the image's signature"),
    ("platform", "", "string", "", describe.PLATFORM),
    ("quiet", "q", "bool", False, "Suppress verbose output"),
)


def pull_image(cli: Cli, image: str, platform: str, quiet: bool, out: TextIO | None, all_tags: bool = False) -> None:
    """Shows progress on `out` unless `quiet`."""
    check(image)
    _domain, _path, tag, digest = split(image)
    name = familiar(image).partition("@")[0] if digest else familiar(image)
    if name.rpartition(":")[1] and "/" not in name.rpartition(":")[2]:
        name = name.rpartition(":")[0]
    query = [("fromImage", name)]
    if not all_tags:
        query.append(("tag", digest or tag or "latest"))
    if platform:
        query.append(("platform", platform.lower()))
    messages = cli.engine.messages("POST", "/images/create", query, None, header(cli.config_directory, image))
    if quiet or out is None:
        import io

        out = io.StringIO()
    progress.show(messages, out)


def full_name(image: str) -> str:
    domain, path, tag, digest = split(image)
    if digest:
        return f"{domain}/{path}@{digest}"
    return f"{domain}/{path}:{tag or 'latest'}"


def pull(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    image = arguments[0]
    check(image)
    _, _, tag, digest = split(image)
    if flags["all-tags"] and (tag or digest):
        raise StatusError("tag can't be used with --all-tags/-a", 1)
    if not flags["all-tags"] and not tag and not digest and not flags["quiet"]:
        print("Using default tag: latest", flush=True)
    pull_image(cli, image, flags["platform"], flags["quiet"], sys.stdout, flags["all-tags"])
    name = full_name(image)
    print(name.rpartition(":")[0] if flags["all-tags"] else name)
    return 0


_REFUSE = {"disable-content-trust": "signatures are not verified; pull by digest instead (NAME@sha256:...)"}
COMMANDS = {"pull": Command(pull, FLAGS, (1, 1), refuse=_REFUSE)}
