"""What a scoped socket may do: operations by name, on containers of its own only if it says which those are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from wherry.api.operations import ALWAYS, GROUPS, LIFECYCLE, READ_CONTAINERS, SOCKETS, reaches_beyond
from wherry.errors import InvalidArgument
from wherry.spec.decode import decode, document, encode

PRIVILEGED = "privileged"
"""Lets creations, updates and execs ask for what reaches beyond the container."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_NARROWED = LIFECYCLE | {
    *("containers.create", "containers.update", "containers.rename", "containers.resize", "containers.remove"),
    *("containers.attach", "containers.exec", "containers.copy-from", "containers.copy-to", "containers.export"),
}


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One scoped socket. `allow`: names of operations and groups of them, "METHOD /path" for a single route.

    With `labels` ("key" or "key=value", all must hold) or `names` (patterns as a shell's, one must hold) only the
    containers they fit exist for it. `group` and `user` (names or numbers) own the socket's file; `mode` is octal.
    """

    name: str
    allow: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    path: str = ""
    user: str = ""
    group: str = ""
    mode: str = "0660"
    created: int = 0

    @property
    def narrowed(self) -> bool:
        """Whether it is about some containers only."""
        return bool(self.labels or self.names)

    def fits(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a container is one of its own."""
        return self.fits_name(name) and all(_has_label(labels, wanted) for wanted in self.labels)

    def fits_name(self, name: str) -> bool:
        """Whether a container of its own may bear this name."""
        return not self.names or any(fnmatchcase(name, pattern) for pattern in self.names)

    def fits_event(self, event: Mapping[str, Any]) -> bool:
        """Whether it may see an event. A container's events carry its labels and its name."""
        attributes = event["Actor"]["Attributes"]
        return event["Type"] == "container" and self.fits(attributes.get("name", ""), attributes)

    def operations(self) -> frozenset[str]:
        """Everything allowed, groups resolved."""
        allowed = set(ALWAYS)
        for word in self.allow:
            allowed |= GROUPS.get(word, {word})
        if self.narrowed:
            # Reading as a group is then reading of what can be narrowed.
            allowed -= GROUPS["read"] - READ_CONTAINERS - set(self.allow)
        return frozenset(allowed)


def parse_scope(given: Any, known: Mapping[str, str]) -> Scope:
    """A scope from its document; InvalidArgument for what means nothing or could not be kept. `known`: the operation
    of each name and each "METHOD /path"."""
    scope = decode(Scope, given)
    if not _NAME.fullmatch(scope.name):
        raise InvalidArgument(f"invalid name {scope.name!r} for a socket", hint="letters, digits, _ . -; at most 64")
    if not scope.allow:
        raise InvalidArgument("a socket that may do nothing is of no use", hint='Allow: ["read"], for instance')
    if not re.fullmatch(r"0?[0-7]{3}", scope.mode):
        raise InvalidArgument(f"invalid mode {scope.mode!r}", hint="octal, as 0660")
    if scope.path and not scope.path.startswith("/"):
        raise InvalidArgument(f"the socket's path must be absolute: {scope.path}", object=scope.path)
    for word in scope.allow:
        if word not in GROUPS and word != PRIVILEGED:
            _check_word(scope, word, known)
    return scope


def _check_word(scope: Scope, word: str, known: Mapping[str, str]) -> None:
    name = known.get(word)
    if name is None:
        raise InvalidArgument(f"there is no operation {word!r}", object=word, hint=_HINT)
    if name.startswith(SOCKETS):
        raise InvalidArgument("a scoped socket cannot make sockets: it could make a wider one", object=word)
    if reaches_beyond(name) and PRIVILEGED not in scope.allow:
        raise InvalidArgument(
            f"{word} can take hold of the machine, and nothing keeps it from that",
            object=word,
            hint=f"if that is wanted, allow {PRIVILEGED} as well",
        )
    if scope.narrowed and not _can_be_narrowed(name):
        raise InvalidArgument(
            f"{word} is not about single containers, so it cannot be kept to some of them",
            object=word,
            hint="allow it on another socket, without labels and names",
        )


_HINT = "GET /wherry/sockets/operations lists them; groups are " + ", ".join(sorted(GROUPS))


def _can_be_narrowed(name: str) -> bool:
    return name in READ_CONTAINERS or name in _NARROWED or name in ALWAYS or name.startswith("images.")


def to_document(scope: Scope) -> dict[str, Any]:
    """The document it was made from, completed."""
    found: dict[str, Any] = encode(scope)
    return found


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
