"""`wherry version`."""

from __future__ import annotations

import sys

from wherry.cli import describe
from wherry.cli.flags import Command, StatusError
from wherry.client.engine import NEWEST
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

VERSION = "0.1.0"
FLAGS = (("format", "f", "string", "", describe.FORMAT),)
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def client(cli: Cli, negotiated: str) -> dict[str, str]:
    """The client's side of the document."""
    import posix

    from wherry.client.context import current_name

    machine = posix.uname().machine
    name = "default" if cli.flags["host"] else current_name(cli.config_directory, cli.flags["context"])[0]
    return {
        "Version": VERSION,
        "ApiVersion": negotiated,
        "DefaultAPIVersion": NEWEST,
        "GitCommit": "",
        "GoVersion": f"Python {sys.version.split()[0]}",
        "Os": "linux",
        "Arch": _MACHINES.get(machine, machine),
        "BuildTime": "",
        "Context": name,
    }


def version(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    failure = ""
    server: dict[str, Any] | None = None
    try:
        server = cli.engine.get("/version")
        negotiated = cli.engine.version
    except WherryError as error:
        failure, negotiated = str(error), NEWEST
    document = {"Client": client(cli, negotiated), "Server": server}
    format = flags["format"]
    if format == "json":
        from wherry.client.codec import go_dumps

        print(go_dumps(document))
    elif format:
        from wherry.cli.template import Template
        from wherry.cli.template_functions import TemplateError

        try:
            print(Template(format).render(document))
        except TemplateError as error:
            raise StatusError(f"template parsing error: {error}", 64) from None
    else:
        sys.stdout.write(_text(document))
    if failure:
        raise StatusError(failure, 1)
    return 0


def _text(document: dict[str, Any]) -> str:
    from wherry.cli.tabulate import align

    us, server = document["Client"], document["Server"]
    lines = [
        "Client: Wherry",
        f" Version:\t{us['Version']}",
        f" API version:\t{us['ApiVersion']}" + (f" (downgraded from {NEWEST})" if us["ApiVersion"] != NEWEST else ""),
        f" Runtime:\t{us['GoVersion']}",
        f" OS/Arch:\t{us['Os']}/{us['Arch']}",
        f" Context:\t{us['Context']}",
    ]
    if server:
        platform = (server.get("Platform") or {}).get("Name", "")
        lines += ["", f"Server: {platform}".rstrip() if platform else "Server:"]
        for component in server.get("Components") or [_engine(server)]:
            lines += _component(component)
    return align("".join(line + "\n" for line in lines), 20, 1)


def _engine(server: dict[str, Any]) -> dict[str, Any]:
    """Engines before 1.35 name no components."""
    return {"Name": "Engine", "Version": server.get("Version"), "Details": server}


def _component(component: dict[str, Any]) -> list[str]:
    details = component.get("Details") or {}
    lines = [f" {component['Name']}:", f"  Version:\t{component['Version']}"]
    if component["Name"] != "Engine":
        return lines + [f"  {key}:\t{value}" for key, value in sorted(details.items())]
    minimum = f" (minimum version {details['MinAPIVersion']})" if details.get("MinAPIVersion") else ""
    lines.append(f"  API version:\t{details.get('ApiVersion', '')}{minimum}")
    rows = (("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime"))
    lines += [
        f"  {title}:\t{_moment(details.get(key, '')) if key == 'BuildTime' else details.get(key, '')}"
        for title, key in rows
    ]
    lines.append(f"  OS/Arch:\t{details.get('Os', '')}/{details.get('Arch', '')}")
    return [*lines, f"  Experimental:\t{details.get('Experimental', 'false')}"]


def _moment(text: str) -> str:
    """A time in RFC 3339 as C's asctime writes it; other texts as they are."""
    import time

    from wherry.cli.moments import from_rfc3339

    seconds = from_rfc3339(text)
    return time.asctime(time.gmtime(seconds)) if seconds else text


COMMANDS = {"version": Command(version, FLAGS)}
