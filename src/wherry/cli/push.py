"""`wherry push`."""

from __future__ import annotations

import io
import sys

from wherry.cli import progress
from wherry.cli.credentials import header
from wherry.cli.flags import Command, StatusError
from wherry.cli.reference import check, familiar, split
from wherry.client.engine import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("all-tags", "a", "bool", False, "Push all tags of an image to the repository"),
    ("disable-content-trust", "", "bool", True, "Skip image signing"),
    ("platform", "", "string", "", "Push a platform-specific manifest as a single-platform image"),
    ("quiet", "q", "bool", False, "Suppress verbose output"),
)


def push(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    image = arguments[0]
    check(image)
    _, _, tag, digest = split(image)
    if digest:
        raise StatusError("cannot push a digest reference", 1)
    if flags["all-tags"] and tag:
        raise StatusError("tag can't be used with --all-tags/-a", 1)
    if not flags["all-tags"] and not tag:
        tag = "latest"
        if not flags["quiet"]:
            print("Using default tag: latest", flush=True)
    name = familiar(image)
    if name.rpartition(":")[1] and "/" not in name.rpartition(":")[2]:
        name = name.rpartition(":")[0]
    query = [] if flags["all-tags"] else [("tag", tag)]
    credentials = header(cli.config_directory, image)
    messages = cli.engine.messages("POST", f"/images/{segment(name)}/push", query, None, credentials)
    progress.show(messages, io.StringIO() if flags["quiet"] else sys.stdout)
    if flags["quiet"]:
        print(f"{name}:{tag}" if tag else name)
    return 0


_REFUSE = {
    "disable-content-trust": "images are not signed",
    "platform": "images here have one platform",
}
COMMANDS = {"push": Command(push, FLAGS, (1, 1), refuse=_REFUSE)}
