"""Who pulls, and what a registry wants to know about it: challenges, basic credentials, bearer tokens.

Sources: docker-docs registry/spec/auth (token, oauth), RFC 9110 section 11 for the shape of a challenge.
"""

import base64
import re
from collections.abc import Mapping
from typing import NamedTuple

_CHALLENGE = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')


class RegistryAuth(NamedTuple):
    """The content of X-Registry-Auth: what a client gives for one registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    @property
    def basic(self) -> str | None:
        """The value of a basic Authorization header, or None without a user name."""
        if not self.username:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Challenge(NamedTuple):
    """One way to authenticate that a registry offers; the scheme in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: list[str]) -> list[Challenge]:
    """The challenges of WWW-Authenticate headers; what cannot be read is left out."""
    found: list[Challenge] = []
    for header in headers:
        position = 0
        while scheme := _CHALLENGE.match(header, position):
            position = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(header, position):
                name, quoted, plain = parameter.groups()
                parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                position = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found
