"""The sources of COPY: wildcards resolved, `./` of --parents, what each becomes at the destination."""

import os
import posixpath
import re
import stat
from dataclasses import dataclass

from wherry.archive import walk
from wherry.build.ignore import Ignore, check_glob, glob_matcher
from wherry.build.trees import SourceTree


@dataclass(frozen=True, slots=True)
class Selected:
    """One source: `real` in the tree; `below`: directories to put between the destination and it (--parents)."""

    real: bytes
    below: bytes
    name: bytes
    directory: bool


def select(tree: SourceTree, text: str, *, parents: bool) -> list[Selected]:
    """What a source stands for, sorted. NotFound when it names nothing and has no wildcards."""
    pivot, path = _pivot(text) if parents else ("", text)
    path = posixpath.normpath("/" + path).lstrip("/")
    base = posixpath.normpath("/" + pivot).lstrip("/")
    whole = posixpath.join(base, path) if path else base
    fixed, pattern = _split(whole)
    found = [whole] if not pattern else _matching(tree, fixed, pattern, any_depth=parents)
    return [_selected(tree, one, base, text, parents=parents) for one in found]


def _pivot(text: str) -> tuple[str, str]:
    """ "x/./y" keeps only y's directories."""
    before, mark, after = text.partition("/./")
    return (before, after) if mark and before not in ("", ".") else ("", text)


def _split(path: str) -> tuple[str, str]:
    """The directories before the first wildcard, and the rest; escapes undone where there is none."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if _has_wildcards(part):
            return "/".join(map(_unescape, parts[:index])), "/".join(parts[index:])
    return "/".join(map(_unescape, parts)), ""


def _has_wildcards(part: str) -> bool:
    return re.search(r"(?<!\\)(?:\\\\)*[*?[]", part) is not None


def _unescape(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part)


def _matching(tree: SourceTree, fixed: str, pattern: str, *, any_depth: bool) -> list[str]:
    """Paths that match as filepath.Match has it: a wildcard does not cross a slash, but for `**` with --parents."""
    check_glob(pattern)
    deep = any_depth and "**" in pattern.split("/")
    matches = glob_matcher(pattern if deep else pattern.replace("**", "*"))
    levels = pattern.count("/") + 1
    start = tree.resolve(fixed or "/")
    found: list[str] = []
    done: list[bytes] = []
    for directory in walk(tree.root, start):
        inside = directory.path[len(start) + 1 :] if start and directory.path != start else b""
        inside = directory.path if not start else inside
        depth = inside.count(b"/") + 2 if inside else 1
        if (depth > levels and not deep) or any(
            directory.path.startswith(path + b"/") or directory.path == path for path in done
        ):
            continue
        for name, status in directory.entries:
            below = os.fsdecode(inside + b"/" + name if inside else name)
            if matches(below) and not _hidden(tree, directory.path, name):
                found.append(posixpath.join(fixed, below))
                if stat.S_ISDIR(status.st_mode) and not deep:
                    done.append(directory.path + b"/" + name if directory.path else name)
    return sorted(found)


def _hidden(tree: SourceTree, directory: bytes, name: bytes) -> bool:
    path = os.fsdecode(directory + b"/" + name if directory else name)
    return tree.ignore is not None and tree.ignore.ignores(path) and not tree.ignore.descends(path)


def _selected(tree: SourceTree, path: str, base: str, shown: str, *, parents: bool) -> Selected:
    real = tree.resolve("/" + path) if path else b""
    name = os.fsencode(path.rpartition("/")[2])
    directory = stat.S_ISDIR(tree.status(real).st_mode)
    below = b""
    if parents and path:
        relative = path[len(base) + 1 :] if base else path
        below = os.fsencode(relative if directory else relative.rpartition("/")[0])
    return Selected(real, below, name, directory)


def excluding(patterns: tuple[str, ...]) -> Ignore | None:
    return Ignore(patterns) if patterns else None
