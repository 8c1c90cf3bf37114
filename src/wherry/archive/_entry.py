"""One member of a tar archive, as the reader hands it out and the unpacker takes it in."""

from wherry.errors import InvalidArgument

BLOCK = 512

# Type flags (POSIX.1-2017 pax, ustar interchange format; GNU tar manual, "Basic Tar Format").
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO, CONTIGUOUS = b"01234567"
OLD_REGULAR = 0
PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE = b"xgLKS"

# No name, link target or extended header of a legitimate archive comes near this; Go's reader has the same limit.
MAX_SPECIAL = 1 << 20


class Entry:
    """`size` counts the bytes stored in the archive, `real_size` those of the file (they differ when sparse).

    `sparse` lists (offset, length) of the data, ascending; None when the file is stored whole.
    `mtime` is in nanoseconds. Names are raw bytes, as found.
    """

    __slots__ = (
        "devmajor",
        "devminor",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime",
        "name",
        "real_size",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )

    name: bytes
    link: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    real_size: int
    mtime: int
    devmajor: int
    devminor: int
    xattrs: dict[bytes, bytes] | None
    sparse: list[tuple[int, int]] | None


def malformed(what: str, entry: bytes | None = None) -> InvalidArgument:
    """The archive breaks the tar format."""
    name = show(entry) if entry is not None else None
    where = f" at entry {name}" if name else ""
    return InvalidArgument(f"invalid tar archive{where}: {what}", object=name)


def show(name: bytes) -> str:
    """A name from an archive, fit for a message: at most 200 characters, nothing unprintable."""
    text = name.decode("utf-8", "backslashreplace")
    if len(text) > 200:
        text = text[:200] + "..."
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    printable = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in quoted)
    return '"' + "".join(printable) + '"'
