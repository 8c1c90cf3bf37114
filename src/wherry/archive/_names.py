"""Names from archives and clients, made harmless as text. What they lead to is decided by descriptors, not here."""

from wherry.archive._entry import show
from wherry.errors import InvalidArgument

NAME_MAX = 255
_SPECIAL = frozenset((b"", b".", b".."))


def components(name: bytes) -> list[bytes]:
    """The parts of `name` below the destination: absolute names are taken as relative, "a/../b" is "b".

    InvalidArgument when the name climbs out, which no honest archive does.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArgument(
                    f"invalid tar archive: entry {show(name)} is outside of the archive's root", object=show(name)
                )
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return parts


def split(name: bytes) -> tuple[bytes, bytes]:
    """(parent, last part); the parent still as written when that is cheap, for `components` to take apart.

    The last part is never "", "." or ".." unless the name is the root itself: then (b"", b"").
    """
    if name.endswith(b"/"):
        name = name.rstrip(b"/")
    parent, _, base = name.rpartition(b"/")
    if base in _SPECIAL:
        parts = components(name)
        if not parts:
            return b"", b""
        base = parts.pop()
        parent = b"/".join(parts)
    if len(base) > NAME_MAX:
        raise InvalidArgument(
            f"invalid tar archive: file name of entry {show(name)} is longer than {NAME_MAX} bytes", object=show(name)
        )
    return parent, base
