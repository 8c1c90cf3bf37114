"""The 512-byte header block: v7, ustar, star and GNU (POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format")."""

from struct import Struct

from wherry.archive._entry import BLOCK, MAX_SPECIAL, Entry, malformed

# name mode uid gid size mtime checksum type link magic+version uname gname devmajor devminor prefix
_FIELDS = Struct("100s8s8s8s12s12s8sB100s8s32s32s8s8s155s12x").unpack
_ZERO = bytes(BLOCK)
_SMALL: dict[bytes, int] = {}
MAX_SIZE = (1 << 63) - 1


def is_zero(block: bytes) -> bool:
    return block == _ZERO


def parse(block: bytes) -> Entry:
    """The entry a header block describes; InvalidArgument when the block is no header."""
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix = _FIELDS(block)
    if sum(block) - sum(checksum) + 256 != number(checksum, "checksum"):
        _check_signed(block, checksum)
    entry = Entry()
    entry.name = name = name.split(b"\0", 1)[0]
    entry.mode = _small(mode, "mode") & 0o7777
    entry.uid = _small(uid, "uid")
    entry.gid = _small(gid, "gid")
    entry.size = entry.real_size = number(size, "size")
    if not 0 <= entry.size <= MAX_SIZE:
        raise malformed("size out of range", name)
    seconds = number(mtime, "mtime")
    # No clock shows what does not fit time_t; docker takes it for the epoch.
    entry.mtime = seconds * 1_000_000_000 if -MAX_SIZE < seconds < MAX_SIZE else 0
    entry.link = link.split(b"\0", 1)[0] if link[0] else b""
    entry.xattrs = entry.sparse = None
    entry.devmajor = entry.devminor = 0
    if magic[:5] == b"ustar":
        entry.devmajor = _small(major, "devmajor")
        entry.devminor = _small(minor, "devminor")
        # GNU ("ustar  \0") keeps times where ustar keeps the prefix; star ends with "tar\0" and has a shorter one.
        if prefix[0] and magic == b"ustar\x0000":
            prefix = (prefix[:131] if block[508:] == b"tar\0" else prefix).split(b"\0", 1)[0]
            entry.name = prefix + b"/" + name
    entry.kind = kind
    return entry


def number(field: bytes, what: str) -> int:
    """A numeric field: octal digits, or base 256 when the first bit is set (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        # The mark bit is not part of the number: 0x80 introduces a positive, 0xff a negative one.
        return value if field[0] & 0x40 else value + (1 << (8 * len(field) - 1))
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit():
        raise malformed(f"{what} is not a number")
    try:
        return int(digits, 8)
    except ValueError:
        raise malformed(f"{what} is not an octal number") from None


def _small(field: bytes, what: str) -> int:
    # Modes, owners and devices take few values in one archive: parsed once each.
    value = _SMALL.get(field)
    if value is None:
        value = number(field, what)
        if len(_SMALL) > 4096:
            _SMALL.clear()
        _SMALL[field] = value
    return value


def _check_signed(block: bytes, checksum: bytes) -> None:
    """Some old writers summed signed characters."""
    outside = block[:148] + block[156:]
    signed = 256 + sum(byte - 256 if byte > 127 else byte for byte in outside)
    if signed != number(checksum, "checksum"):
        raise malformed("header checksum does not match")


def special_size(entry: Entry) -> int:
    """The size of a long name or extended header, refused when absurd."""
    if entry.size > MAX_SPECIAL:
        raise malformed("extended header too large", entry.name)
    return entry.size
