"""Extended headers (POSIX.1-2017 pax, "pax Extended Header"): records of "length key=value\\n"."""

from wherry.archive._entry import Entry, malformed
from wherry.archive._header import MAX_SIZE

_XATTR = b"SCHILY.xattr."
_SPARSE_OFFSET, _SPARSE_LENGTH = b"GNU.sparse.offset", b"GNU.sparse.numbytes"
SPARSE_MAP = b"GNU.sparse.map"


def records(data: bytes) -> dict[bytes, bytes]:
    """Keys to values; of a repeated key the last value. The repeated pairs of GNU sparse 0.0 come out as a 0.1 map."""
    found: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            raise malformed("extended header record without a length")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise malformed("extended header record of the wrong length")
        if key in (_SPARSE_OFFSET, _SPARSE_LENGTH):
            if (key == _SPARSE_LENGTH) != (len(pairs) % 2 == 1):
                raise malformed("sparse offsets and lengths do not alternate")
            pairs.append(value)
        else:
            found[key] = value
        position = end
    if pairs:
        found[SPARSE_MAP] = b",".join(pairs)
    return found


def apply(entry: Entry, found: dict[bytes, bytes]) -> None:
    """Let extended header records override what the header block says. An empty value deletes nothing here."""
    for key, value in found.items():
        if key.startswith(_XATTR):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue
        elif key == b"path":
            entry.name = text(value)
        elif key == b"linkpath":
            entry.link = text(value)
        elif key == b"mtime":
            entry.mtime = nanoseconds(value)
        elif key == b"size":
            entry.size = entry.real_size = integer(value, "size")
        elif key == b"uid":
            entry.uid = integer(value, "uid")
        elif key == b"gid":
            entry.gid = integer(value, "gid")


def integer(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 19:
        raise malformed(f"{what} in an extended header is not a number")
    found = int(value)
    if found > MAX_SIZE:
        raise malformed(f"{what} in an extended header is out of range")
    return found


def nanoseconds(value: bytes) -> int:
    """Decimal seconds, possibly negative, with a fraction of any length."""
    sign = -1 if value.startswith(b"-") else 1
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()) or len(whole) > 19:
        raise malformed("mtime in an extended header is not a number")
    return sign * (int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def text(value: bytes) -> bytes:
    if b"\0" in value:
        raise malformed("a name contains NUL", value)
    return value
