"""--chown and the owner of WORKDIR: names looked up in the tree's own /etc/passwd and /etc/group."""

from wherry.archive import read_file
from wherry.errors import InvalidArgument, NotFound

_MAX_FILE = 4 << 20
_MAX_ID = (1 << 32) - 2


def owner_of(text: str, root: int) -> tuple[int, int]:
    """ "user[:group]", each a name or a number. A number alone is the group's too, a name brings its own group."""
    user, colon, group = text.partition(":")
    uid, gid = _user(user, root) if user else (0, 0)
    if colon and group:
        gid = _group(group, root)
    return uid, gid


def _user(text: str, root: int) -> tuple[int, int]:
    number = _number(text)
    for fields in _lines(root, "/etc/passwd", 4):
        if fields[0] == text or (number is not None and _number(fields[2]) == number):
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                return (uid, gid) if number is None else (number, number)
    if number is None:
        raise InvalidArgument(f"unable to find user {text}: no matching entries in passwd file", object=text)
    return number, number


def _group(text: str, root: int) -> int:
    number = _number(text)
    if number is not None:
        return number
    for fields in _lines(root, "/etc/group", 3):
        gid = _number(fields[2])
        if fields[0] == text and gid is not None:
            return gid
    raise InvalidArgument(f"unable to find group {text}: no matching entries in group file", object=text)


def _lines(root: int, path: str, count: int) -> list[list[str]]:
    try:
        data = read_file(root, path, limit=_MAX_FILE)
    except (NotFound, InvalidArgument):
        return []
    split = (line.split(":") for line in data.decode("utf-8", "replace").split("\n"))
    return [fields for fields in split if len(fields) >= count]


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) < 11):
        return None
    number = int(text)
    if number > _MAX_ID:
        raise InvalidArgument(f"invalid user or group id {text}", object=text)
    return number
