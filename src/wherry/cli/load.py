"""`wherry load import`."""

from __future__ import annotations

import posix
import sys

from wherry.cli import describe, progress
from wherry.cli.flags import Command, StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_READ = 1 << 18


def blocks(path: str) -> Iterator[bytes]:
    """The bytes of a file, or of standard input for ""; opened at once, so that a mistake shows before any request."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC) if path else 0
    except OSError as error:
        raise StatusError(f"open {path}: {(error.strerror or '').lower()}", 1) from None

    def read() -> Iterator[bytes]:
        while block := posix.read(fd, _READ):
            yield block

    return read()


def load(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    if not flags["input"] and posix.isatty(0):
        raise StatusError("requested load from stdin, but stdin is empty", 1)
    query = []
    if flags["platform"]:
        from wherry.cli.platform import encode

        query.append(("platform", encode(flags["platform"])))
    query.append(("quiet", "1" if flags["quiet"] or not sys.stdout.isatty() else "0"))
    tar = [("Content-Type", "application/x-tar")]
    progress.show(cli.engine.messages("POST", "/images/load", query, blocks(flags["input"]), tar), sys.stdout)
    return 0


def import_(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    source, target = arguments[0], arguments[1] if len(arguments) > 1 else ""
    remote = source.startswith(("http://", "https://"))
    if target:
        from wherry.cli.reference import check

        check(target)
    query = [("fromSrc", source if remote else "-")]
    query += [("repo", target)] if target else []
    query += [("message", flags["message"])] if flags["message"] else []
    query += [("platform", flags["platform"])] if flags["platform"] else []
    query += [("changes", change) for change in flags["change"]]
    body = None if remote else blocks("" if source == "-" else source)
    tar = [("Content-Type", "application/x-tar")] if body else []
    progress.show(cli.engine.messages("POST", "/images/create", query, body, tar), sys.stdout)
    return 0


COMMANDS = {
    "load": Command(
        load,
        (
            ("input", "i", "string", "", "Read from this tar archive instead of STDIN"),
            ("platform", "", "string", "", describe.PLATFORM),
            ("quiet", "q", "bool", False, "Suppress the load output"),
        ),
    ),
    "import": Command(
        import_,
        (
            ("change", "c", "list", None, "Apply a Dockerfile instruction to the image"),
            ("message", "m", "string", "", "Set a message in the image's history"),
            ("platform", "", "string", "", describe.PLATFORM),
        ),
        # docker takes more arguments, and no notice of them.
        (1, None),
    ),
}
