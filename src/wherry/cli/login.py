"""`wherry login logout`: credentials in docker's config.json."""

from __future__ import annotations

import posix
import sys

from wherry.cli.flags import Command, StatusError
from wherry.client import codec
from wherry.client.context import config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_INDEX = "https://index.docker.io/v1/"
FLAGS = (
    ("password", "p", "string", "", "Password or access token"),
    ("password-stdin", "", "bool", False, "Take the password from STDIN"),
    ("username", "u", "string", "", "User name"),
)


def _server(arguments: list[str]) -> str:
    name = arguments[0] if arguments else ""
    name = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return _INDEX if name in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else name


def _refuse_helper(document: dict[str, Any], server: str) -> None:
    if document.get("credsStore") or server in (document.get("credHelpers") or {}):
        raise StatusError(
            "writing to a credential helper is not implemented in wherry; use the helper's own command", 1
        )


def login(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    server = _server(arguments)
    directory = cli.config_directory
    document = config(directory)
    _refuse_helper(document, server)
    user, password = _ask(flags)
    auth = {"username": user, "password": password, "serveraddress": server}
    answer = cli.engine.post("/auth", (), auth) or {}
    import binascii

    token = answer.get("IdentityToken")
    # The token stands for the password, which need not be kept then.
    secret = f"{user}:{'' if token else password}"
    entry: dict[str, Any] = {"auth": binascii.b2a_base64(secret.encode(), newline=False).decode()}
    if token:
        entry["identitytoken"] = token
    document.setdefault("auths", {})[server] = entry
    save(directory, document)
    sys.stderr.write(f"\nWARNING! Your credentials are stored unencrypted in '{directory}/config.json'.\n\n")
    print(answer.get("Status") or "Login Succeeded")
    return 0


def _ask(flags: Flags) -> tuple[str, str]:
    user, password = flags["username"], flags["password"]
    if flags["password-stdin"]:
        if password:
            raise StatusError("conflicting options: cannot specify both --password and --password-stdin", 1)
        if not user:
            raise StatusError("the --password-stdin option requires --username to be set", 1)
        return user, sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if password:
        sys.stderr.write("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    if (not user or not password) and not posix.isatty(0):
        raise StatusError("Error: Cannot perform an interactive login from a non TTY device", 1)
    if not user:
        sys.stdout.write("Username: ")
        sys.stdout.flush()
        user = sys.stdin.readline().strip()
    if not password:
        import getpass

        password = getpass.getpass("Password: ")
    if not user or not password:
        raise StatusError("username and password are required", 1)
    return user, password


def logout(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    server = _server(arguments)
    directory = cli.config_directory
    document = config(directory)
    _refuse_helper(document, server)
    print(f"Removing login credentials for {server}")
    if (document.get("auths") or {}).pop(server, None) is not None:
        save(directory, document)
    return 0


def save(directory: str, document: dict[str, Any]) -> None:
    """Replaces config.json whole: another client may read it at any moment."""
    import os

    os.makedirs(directory, 0o700, exist_ok=True)
    part = f"{directory}/config.json.{posix.getpid()}"
    fd = posix.open(part, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(codec.indented(document, "\t"))
    posix.rename(part, f"{directory}/config.json")


COMMANDS = {"login": Command(login, FLAGS, (0, 1)), "logout": Command(logout, (), (0, 1))}
