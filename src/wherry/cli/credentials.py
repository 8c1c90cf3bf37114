"""Credentials for registries, in docker's config.json or behind its credential helpers."""

from __future__ import annotations

from wherry.cli.reference import registry_key
from wherry.client.codec import dumps, loads
from wherry.client.context import config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def encode(document: object) -> str:
    """As X-Registry-Auth carries it."""
    import binascii

    text = binascii.b2a_base64(dumps(document).encode(), newline=False).decode()
    return text.replace("+", "-").replace("/", "_")


def header(directory: str, image: str) -> list[tuple[str, str]]:
    """The header with the credentials for an image's registry."""
    return [("X-Registry-Auth", encode(find(directory, registry_key(image))))]


def find(directory: str, registry: str) -> dict[str, Any]:
    """{"username", "password" or "identitytoken", "serveraddress"}, or {} when none are stored."""
    document = config(directory)
    helper = (document.get("credHelpers") or {}).get(registry) or document.get("credsStore")
    if helper:
        return _from_helper(helper, registry)
    for name, entry in (document.get("auths") or {}).items():
        if _hostname(name) == _hostname(registry) and isinstance(entry, dict):
            return _decode(entry, registry)
    return {}


def _hostname(address: str) -> str:
    return address.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _decode(entry: dict[str, Any], registry: str) -> dict[str, Any]:
    import binascii

    found: dict[str, Any] = {"serveraddress": registry}
    if entry.get("identitytoken"):
        found["identitytoken"] = entry["identitytoken"]
    if entry.get("auth"):
        user, _, password = binascii.a2b_base64(entry["auth"]).decode().partition(":")
        found |= {"username": user, "password": password.rstrip("\0")}
    return found if len(found) > 1 else {}


def _from_helper(helper: str, registry: str) -> dict[str, Any]:
    import subprocess

    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=registry.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        answer = loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    if not answer:
        return {}
    if answer.get("Username") == "<token>":
        return {"identitytoken": answer.get("Secret", ""), "serveraddress": registry}
    return {"username": answer.get("Username", ""), "password": answer.get("Secret", ""), "serveraddress": registry}
