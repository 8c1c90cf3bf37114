"""Users and groups by the image's own /etc/passwd and /etc/group, read through a descriptor of its root.

The files are the image's, so an attacker's: they are read in bounded size, as regular files, without leaving the root.
Sources: passwd(5), group(5); the rules of precedence are docker's.
"""

import os
import stat
from typing import NamedTuple

from wherry.errors import Internal, InvalidArgument
from wherry.kernel import paths

_MAX_FILE = 4 << 20
_MAX_ID = 2**31 - 1


class Accounts(NamedTuple):
    """The two files as text; empty when absent."""

    passwd: str
    group: str


class Identity(NamedTuple):
    """Who a process is: `groups` are the supplementary ones, the primary one first, as docker sets them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


NO_ACCOUNTS = Accounts("", "")


def read_accounts(root_fd: int) -> Accounts:
    """Both files of the tree below `root_fd`."""
    return Accounts(_read(root_fd, "etc/passwd"), _read(root_fd, "etc/group"))


def identify(user: str, additional: tuple[str, ...], accounts: Accounts) -> Identity:
    """`user` as docker writes it ("", "name", "uid", "name:group", ...) and the groups of --group-add."""
    name, _, group = user.partition(":")
    for text in (name, group, *additional):
        _refuse_negative(text)
    entry = _find_user(name or "0", accounts.passwd)
    if entry is None and not _is_number(name or "0"):
        raise Internal(f"unable to find user {name}: no matching entries in passwd file", object=name)
    uid = entry[2] if entry else _number(name or "0")
    gid = entry[3] if entry else 0
    home = entry[5] if entry else "/"
    groups: list[int] = []
    if group:
        gid = _group_id(group, accounts.group)
    elif entry:
        groups = [number for _, number, members in _groups(accounts.group) if entry[0] in members]
    for extra in additional:
        groups.append(_group_id(extra, accounts.group))
    return Identity(uid, gid, tuple(dict.fromkeys((gid, *groups))), home or "/")


def _group_id(text: str, groups: str) -> int:
    for name, number, _ in _groups(groups):
        if name == text:
            return number
    if _is_number(text):
        return _number(text)
    raise Internal(f"unable to find group {text}: no matching entries in group file", object=text)


def _refuse_negative(text: str) -> None:
    if text.startswith("-") and _is_number(text[1:]):
        raise InvalidArgument("uids and gids must be in range 0-2147483647", object=text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int:
    number = int(text) if len(text) < 20 else _MAX_ID + 1
    if number > _MAX_ID:
        raise InvalidArgument("uids and gids must be in range 0-2147483647", object=text)
    return number


def _find_user(wanted: str, passwd: str) -> tuple[str, str, int, int, str, str] | None:
    by_id = _number(wanted) if _is_number(wanted) else None
    for line in passwd.split("\n"):
        fields = line.strip().split(":")
        if len(fields) < 4 or not _is_number(fields[2]) or not _is_number(fields[3]):
            continue
        if fields[0] == wanted or (by_id is not None and int(fields[2][:19]) == by_id):
            home = fields[5] if len(fields) > 5 else ""
            return fields[0], "", _number(fields[2]), _number(fields[3]), "", home
    return None


def _groups(text: str) -> list[tuple[str, int, list[str]]]:
    found = []
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= 3 and _is_number(fields[2]) and len(fields[2]) < 11:
            found.append((fields[0], int(fields[2]), fields[3].split(",") if len(fields) > 3 and fields[3] else []))
    return found


def _read(root_fd: int, path: str) -> str:
    try:
        fd = paths.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        chunks, left = [], _MAX_FILE
        while left > 0 and (chunk := os.read(fd, min(left, 1 << 16))):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks).decode("utf-8", "replace")
    finally:
        os.close(fd)
