"""Who may do what.

Three ways to say who one is: not at all, a name and password (an htpasswd file, bcrypt), a bearer token (registry token
specification: a JWT whose `access` claim lists repositories and actions). Tokens are this registry's own, given at
/token to whoever a password proves, or another server's, whose public key is known here.

What a name may do is in rules, the first that fits a repository and a user deciding:

    [[access]]
    repositories = "team/*"          # "*" fits any text, slashes too
    users = ["alice", "ci"]          # "*": everybody who signed in; "anonymous": everybody
    actions = ["pull", "push"]       # pull, push, delete, or "*"
"""

import base64
import binascii
import fnmatch
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from wherry.errors import InvalidArgument
from wherry.registry.errors import Refused
from wherry.registry.passwords import Passwords
from wherry.registry.tokens import Tokens

ACTIONS = ("pull", "push", "delete")
ANONYMOUS = "anonymous"


class Identity(NamedTuple):
    """Who asks: a name ("" for nobody), and what a token grants (None: the rules say)."""

    user: str
    granted: Mapping[str, Collection[str]] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the access file."""

    repositories: str
    users: tuple[str, ...]
    actions: tuple[str, ...]

    def fits(self, repository: str, user: str) -> bool:
        known = user in self.users or ANONYMOUS in self.users or ("*" in self.users and bool(user))
        return known and fnmatch.fnmatchcase(repository, self.repositories)


def parse_rules(document: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The `access` tables of an access file; InvalidArgument names the entry that is wrong."""
    return tuple(_parse_rule(number, entry) for number, entry in enumerate(document, 1))


def _parse_rule(number: int, entry: Mapping[str, Any]) -> Rule:
    unknown = entry.keys() - {"repositories", "users", "actions"}
    if unknown:
        raise InvalidArgument(f"access rule {number}: unknown setting {min(unknown)!r}")
    repositories, users, actions = entry.get("repositories"), entry.get("users"), entry.get("actions")
    if not isinstance(repositories, str) or not _is_strings(users) or not _is_strings(actions):
        raise InvalidArgument(f"access rule {number}: wanted repositories (text), users and actions (lists of text)")
    for action in actions or ():
        if action not in (*ACTIONS, "*"):
            raise InvalidArgument(
                f"access rule {number}: unknown action {action!r}", hint=f"one of {', '.join(ACTIONS)}"
            )
    return Rule(repositories, tuple(users or ()), ACTIONS if "*" in (actions or ()) else tuple(actions or ()))


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class Access:
    """Authentication and permission for every request. Without passwords and tokens everybody may do everything."""

    def __init__(
        self, passwords: Passwords | None = None, tokens: Tokens | None = None, rules: Sequence[Rule] = ()
    ) -> None:
        self._passwords, self.tokens, self._rules = passwords, tokens, tuple(rules)
        self.open = passwords is None and tokens is None and not rules

    async def identify(self, authorization: str | None) -> Identity:
        """Who an Authorization header speaks for; Refused(UNAUTHORIZED) when it lies."""
        scheme, _, value = (authorization or "").partition(" ")
        if self.open or not authorization:
            return Identity("")
        if scheme.lower() == "bearer" and self.tokens is not None:
            user, granted = self.tokens.verify(value.strip())
            return Identity(user, granted)
        if scheme.lower() == "basic" and self._passwords is not None:
            return Identity(await self._sign_in(value.strip()))
        raise self.challenge("authentication required")

    async def _sign_in(self, encoded: str) -> str:
        assert self._passwords is not None
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise self.challenge("the credentials cannot be read") from None
        if not colon:
            raise self.challenge("the credentials cannot be read")
        return (await self.sign_in(user, password)).user

    async def sign_in(self, user: str, password: str) -> Identity:
        """Refused(UNAUTHORIZED) when they do not belong together."""
        if self._passwords is None or not await self._passwords.check(user, password):
            raise self.challenge("invalid user name or password")
        return Identity(user)

    def actions(self, identity: Identity, repository: str) -> Collection[str]:
        """What the rules let somebody do there."""
        if identity.granted is not None:
            return identity.granted.get(repository, ())
        if not self._rules:
            return ACTIONS if self.open or identity.user else ()
        for rule in self._rules:
            if rule.fits(repository, identity.user):
                return rule.actions
        return ()

    def require(self, identity: Identity, repository: str, action: str) -> None:
        """Refused(UNAUTHORIZED) for who might by signing in, Refused(DENIED) for who may not."""
        if action in self.actions(identity, repository):
            return
        scope = f"repository:{repository}:{'pull,push' if action == 'push' else action}"
        if not identity.user or identity.granted is not None:
            raise self.challenge("authentication required", scope)
        raise Refused("DENIED", "requested access to the resource is denied", detail={"name": repository})

    def require_user(self, identity: Identity) -> None:
        """GET /v2/: clients find out here how to sign in. Where anonymous users may do something they need not."""
        if self.open or identity.user or identity.granted is not None:
            return
        if any(ANONYMOUS in rule.users for rule in self._rules) and self.tokens is None:
            return
        raise self.challenge("authentication required")

    def challenge(self, message: str, scope: str = "") -> Refused:
        """The refusal that says how to sign in."""
        if self.tokens is not None:
            header = self.tokens.challenge(scope)
        else:
            header = 'Basic realm="Wherry registry", charset="UTF-8"'
        return Refused("UNAUTHORIZED", message, headers={"WWW-Authenticate": header})

    def grant(self, identity: Identity, scopes: Sequence[str]) -> list[dict[str, Any]]:
        """The `access` claim for what was asked (scope "repository:name:pull,push"), as far as it is allowed."""
        claim = []
        for scope in " ".join(scopes).split():
            kind, _, rest = scope.partition(":")
            name, _, wanted = rest.rpartition(":")
            if kind == "repository" and name:
                allowed = self.actions(Identity(identity.user), name)
                asked = ACTIONS if wanted == "*" else wanted.split(",")
                if given := [action for action in asked if action in allowed]:
                    claim.append({"type": "repository", "name": name, "actions": given})
        return claim


def now() -> int:
    """Unix seconds."""
    return int(time.time())
