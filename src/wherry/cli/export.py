"""`wherry export`."""

from __future__ import annotations

import posix

from wherry.cli.flags import Command, StatusError
from wherry.cli.streams import copy_raw
from wherry.client.engine import segment
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (("output", "o", "string", "", "Write to a file, instead of STDOUT"),)


def export(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    output = flags["output"]
    if not output and posix.isatty(1):
        raise StatusError("cowardly refusing to save to a terminal. Use the -o flag or redirect", 1)
    response = cli.engine.open("GET", f"/containers/{segment(arguments[0])}/export")
    if output:
        write_file(output, response.chunks())
    else:
        copy_raw(response.chunks(), 1)
    return 0


def write_file(path: str, chunks: Iterable[bytes]) -> None:
    """Beside the target first, so that a failure leaves what was there."""
    directory = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    try:
        posix.stat(directory)
    except FileNotFoundError:
        raise InvalidArgument(
            f'failed to export container: invalid output path: directory "{directory}" does not exist'
        ) from None
    part = f"{path}.part-{posix.getpid()}"
    fd = posix.open(part, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        copy_raw(chunks, fd)
        posix.close(fd)
        posix.rename(part, path)
    except BaseException:
        posix.unlink(part)
        raise


COMMANDS = {"export": Command(export, FLAGS, (1, 1))}
