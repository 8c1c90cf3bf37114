"""`wherry context export import`: a context as a tar or zip archive of meta.json and tls/<endpoint>/<file>."""

from __future__ import annotations

import posix
import sys

from wherry.cli import context_store
from wherry.cli.flags import Command
from wherry.client import codec
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_LIMIT = 10 << 20
"""Bytes of an archive that are read, as docker's client does."""


def export(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    import io
    import tarfile

    directory, name = cli.config_directory, arguments[0]
    found = context_store.document(directory, name)
    content = {key: found[key] for key in ("Name", "Metadata", "Endpoints")}
    files = {} if name == "default" else context_store.tls_files(directory, name)
    target = arguments[1] if len(arguments) > 1 else f"{name}.dockercontext"
    if target == "-" and posix.isatty(1):
        raise InvalidArgument("cowardly refusing to export to a terminal, specify a file path")
    members: list[tuple[str, int, bytes | None]] = [("meta.json", 0o644, codec.dumps(content).encode())]
    members.append(("tls", 0o700, None))
    if files:
        members.append(("tls/docker", 0o700, None))
    members += [(f"tls/docker/{file}", 0o600, data) for file, data in sorted(files.items())]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, mode, data in members:
            info = tarfile.TarInfo(path)
            info.mode, info.size = mode, len(data or b"")
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(data or b""))
    _write(target, out.getvalue())
    return 0


def _write(target: str, data: bytes) -> None:
    if target == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        descriptor = posix.open(target, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidArgument(f"open {target}: {(error.strerror or '').lower()}") from None
    with open(descriptor, "wb") as file:
        file.write(data)
    sys.stderr.write(f'Written file "{target}"\n')


def import_(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    directory, (name, source) = cli.config_directory, arguments
    context_store.check_new(directory, name)
    try:
        if source == "-":
            data = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            with open(source, "rb") as file:
                data = file.read(_LIMIT + 1)
    except OSError as error:
        raise InvalidArgument(f"open {source}: {(error.strerror or '').lower()}") from None
    if len(data) > _LIMIT:
        raise InvalidArgument("read exceeds the defined limit")
    content, files = _parse(data)
    content["Name"] = name
    context_store.save(directory, name, content, files)
    print(name)
    sys.stdout.flush()
    sys.stderr.write(f'Successfully imported context "{name}"\n')
    return 0


def _parse(data: bytes) -> tuple[dict[str, object], dict[str, bytes]]:
    """(meta.json's document, TLS files). Nothing of an archive's names becomes a path but the file's own."""
    content: dict[str, object] | None = None
    files: dict[str, bytes] = {}
    for path, contents in _zip(data) if data[:2] == b"PK" else _tar(data) if data else ():
        parts = path.split("/")
        if path == "meta.json":
            content = _meta(contents)
        elif parts[0] != "tls":
            raise InvalidArgument(f"{path}: unexpected context file")
        elif len(parts) != 3 or not all(parts) or parts[2] in (".", "..") or "\0" in path:
            raise InvalidArgument(f"{path}: unexpected path format")
        elif parts[1] == "docker":
            files[parts[2]] = contents
    if content is None:
        raise InvalidArgument("invalid context: no metadata found")
    return content, files


def _meta(data: bytes) -> dict[str, object]:
    try:
        found = codec.loads(data)
    except ValueError as error:
        raise InvalidArgument(f"meta.json is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument("meta.json is not valid JSON: it must be an object")
    return found


def _tar(data: bytes) -> Iterator[tuple[str, bytes]]:
    import io
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member.name, file.read()
    except tarfile.TarError:
        raise InvalidArgument("unexpected EOF" if len(data) < 512 else "archive/tar: invalid tar header") from None


def _zip(data: bytes) -> Iterator[tuple[str, bytes]]:
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.file_size > _LIMIT:
                    raise InvalidArgument("read exceeds the defined limit")
                if not info.is_dir():
                    yield info.filename, archive.read(info)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidArgument(f"zip: not a valid zip file: {error}") from None


COMMANDS = {
    "context export": Command(export, (), (1, 2)),
    "context import": Command(import_, (), (2, 2)),
}
