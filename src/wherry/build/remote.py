"""What a text names that is not a file of the context: a URL, or a git repository with a reference and a directory.

Source: docker's build context documentation ("Git repositories"); dockerfile/reference.md, "ADD".
"""

import posixpath
import re
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from wherry.build.graph import Git

_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^\s]+\Z")
_QUERY = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir")


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def file_name(url: str) -> str:
    """What the file of a URL is called."""
    name = posixpath.basename(unquote(urlsplit(url).path))
    return name if name not in ("", ".", "..") and "\0" not in name else "download"


def git_remote(text: str) -> Git | None:
    """A repository, or None: git://, ssh://, user@host:path, http(s) addresses that end in .git; #reference:dir."""
    if _SCP.match(text):
        address, _, fragment = text.partition("#")
        return _with_fragment(Git(address), fragment)
    parts = urlsplit(text)
    if parts.scheme in ("git", "ssh", "git+ssh"):
        pass
    elif parts.scheme not in ("http", "https") or not parts.path.endswith(".git"):
        return None
    address = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    git = _with_fragment(Git(address), parts.fragment)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = [name for name in query if name not in _QUERY]
    if unknown:
        return None
    reference = query.get("ref") or query.get("tag") or query.get("branch") or git.reference
    return Git(
        address,
        reference,
        query.get("subdir", git.subdirectory),
        checksum=query.get("checksum", query.get("commit", "")),
    )


def _with_fragment(git: Git, fragment: str) -> Git:
    reference, _, directory = fragment.partition(":")
    return Git(git.remote, reference, directory)
