"""`wherry export save`: archives the engine writes."""

from __future__ import annotations

import errno
import posix
import stat

from wherry.cli import describe
from wherry.cli.flags import Command, StatusError
from wherry.cli.streams import copy_raw
from wherry.client.engine import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_OUTPUT = ("output", "o", "string", "", "Write to a file, instead of STDOUT")
_TERMINAL = "cowardly refusing to save to a terminal. Use the -o flag or redirect"


def export(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    output = flags["output"]
    _check(output, "failed to export container")
    response = cli.engine.open("GET", f"/containers/{segment(arguments[0])}/export")
    _write(output, response.chunks())
    return 0


def save(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    output = flags["output"]
    query = [("names", name) for name in arguments]
    if flags["platform"]:
        from wherry.cli.platform import encode

        cli.engine.settle()
        if not cli.engine.at_least("1.48"):
            version = cli.engine.version
            raise StatusError(
                f'"--platform" requires API version 1.48, but the Docker daemon API version is {version}', 1
            )
        query.append(("platform", encode(flags["platform"])))
    _check(output, "failed to save image")
    response = cli.engine.open("GET", "/images/get", query)
    _write(output, response.chunks())
    return 0


def write_archive(output: str, failure: str, asked: Callable[[], Iterable[bytes]]) -> None:
    """What the engine gives once it is `asked`, to a file or to standard output."""
    _check(output, failure)
    _write(output, asked())


def _check(output: str, failure: str) -> None:
    """Refuse what nothing can be written to before the engine is asked for anything."""
    if not output:
        if posix.isatty(1):
            raise StatusError(_TERMINAL, 1)
        return
    directory = output.rpartition("/")[0] or ("/" if output.startswith("/") else ".")
    try:
        posix.stat(directory)
        mode = posix.stat(output).st_mode
    except OSError as error:
        if error.filename == output and error.errno == errno.ENOENT:
            return
        reason = (error.strerror or "").lower()
        raise StatusError(f"{failure}: invalid output path: stat {error.filename}: {reason}", 1) from None
    for kind, found in ((stat.S_ISDIR, "directory"), (stat.S_ISCHR, "character device file"), (stat.S_ISBLK, "device")):
        if kind(mode):
            raise StatusError(f"{failure}: cannot write to a {found}", 1)


def _write(output: str, chunks: Iterable[bytes]) -> None:
    """To standard output; or beside the target first, so that a failure leaves what was there."""
    if not output:
        copy_raw(chunks, 1)
        return
    part = f"{output}.part-{posix.getpid()}"
    fd = posix.open(part, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        copy_raw(chunks, fd)
        posix.close(fd)
        posix.rename(part, output)
    except BaseException:
        posix.unlink(part)
        raise


COMMANDS = {
    "export": Command(export, (_OUTPUT,), (1, 1)),
    "save": Command(save, (_OUTPUT, ("platform", "", "string", "", describe.PLATFORM)), (1, None)),
}
