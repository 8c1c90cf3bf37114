"""`wherry info`."""

from __future__ import annotations

import sys

from wherry.cli import describe
from wherry.cli.flags import Command, StatusError
from wherry.cli.units import binary_size
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

    Info = dict[str, Any]

FLAGS = (("format", "f", "string", "", describe.FORMAT),)


def info(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.version import client

    about = client(cli, "")
    format = flags["format"]
    failure = ""
    found: Info = {}
    try:
        found = cli.engine.get("/info")
    except WherryError as error:
        failure = str(error)
    if format:
        _formatted(format, found, about, bool(cli.flags["debug"]))
    else:
        lines = ["Client: Wherry", f" Version:    {about['Version']}", f" Context:    {about['Context']}"]
        lines += [f" Debug Mode: {_yes(cli.flags['debug'])}", "", "Server:"]
        sys.stdout.write("".join(line + "\n" for line in lines + (_server(found) if found else [])))
        if found:
            print()
            sys.stdout.flush()
            for warning in found.get("Warnings") or ():
                sys.stderr.write(f"{warning}\n")
    if failure:
        raise StatusError(failure, 1)
    return 0


def _formatted(format: str, found: Info, about: dict[str, str], debug: bool) -> None:
    ours: Info = {
        "Debug": debug,
        **{key: about[key] for key in about if key != "ApiVersion"},
        "Plugins": [],
        "Warnings": None,
    }
    document = {**found, "ClientInfo": ours}
    if format == "json":
        from wherry.client.codec import go_dumps

        print(go_dumps(document))
        return
    from wherry.cli.template import Template
    from wherry.cli.template_functions import TemplateError

    try:
        print(Template(format).render(document))
    except TemplateError as error:
        raise StatusError(f"template parsing error: {error}", 64) from None


def _yes(value: object) -> str:
    return "true" if value else "false"


def _server(found: Info) -> list[str]:
    lines = [f" Containers: {found.get('Containers', 0)}"]
    lines += [f"  {state}: {found.get(f'Containers{state}', 0)}" for state in ("Running", "Paused", "Stopped")]
    lines += [f" Images: {found.get('Images', 0)}"]
    lines += _text(found, (("Server Version", "ServerVersion"), ("Storage Driver", "Driver")))
    lines += [f"  {name}: {value}" for name, value in found.get("DriverStatus") or ()]
    lines += _text(found, (("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver")))
    lines += _text(found, (("Cgroup Version", "CgroupVersion"),))
    plugins = found.get("Plugins") or {}
    lines.append(" Plugins:")
    lines += [f"  {name}: {' '.join(plugins[name])}" for name in ("Volume", "Network") if plugins.get(name) is not None]
    lines += [f"  {name}: {' '.join(plugins[name])}" for name in ("Authorization", "Log") if plugins.get(name)]
    if found.get("CDISpecDirs"):
        lines += [" CDI spec directories:", *(f"  {path}" for path in found["CDISpecDirs"])]
    lines.append(f" Swarm: {(found.get('Swarm') or {}).get('LocalNodeState') or 'inactive'}")
    if found.get("Runtimes"):
        lines += [
            f" Runtimes: {' '.join(sorted(found['Runtimes']))}",
            f" Default Runtime: {found.get('DefaultRuntime', '')}",
        ]
    lines.append(f" Init Binary: {found.get('InitBinary', '')}")
    for title, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        lines.append(f" {title} version: {(found.get(key) or {}).get('ID', '')}")
    return lines + _security(found) + _machine(found)


def _text(found: Info, fields: tuple[tuple[str, str], ...]) -> list[str]:
    return [f" {title}: {found[key]}" for title, key in fields if found.get(key)]


def _security(found: Info) -> list[str]:
    options = found.get("SecurityOptions") or []
    lines = [" Security Options:"] if options else []
    for option in options:
        pairs = [part.partition("=") for part in option.split(",")]
        for name, _, value in pairs:
            lines.append(f"  {value}" if name == "name" else f"   {name.title()}: {value}")
    return lines


def _machine(found: Info) -> list[str]:
    fields = (
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    )
    lines = _text(found, fields)
    lines += [f" CPUs: {found.get('NCPU', 0)}", f" Total Memory: {binary_size(found.get('MemTotal', 0))}"]
    lines += _text(found, (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")))
    lines.append(f" Debug Mode: {_yes(found.get('Debug'))}")
    lines += _text(found, (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")))
    if found.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in found["Labels"])]
    lines.append(f" Experimental: {_yes(found.get('ExperimentalBuild'))}")
    registries = found.get("RegistryConfig") or {}
    insecure = [name for name, entry in (registries.get("IndexConfigs") or {}).items() if not entry.get("Secure", True)]
    insecure += registries.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if registries.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {name}" for name in registries["Mirrors"])]
    return [*lines, f" Live Restore Enabled: {_yes(found.get('LiveRestoreEnabled'))}"]


COMMANDS = {"info": Command(info, FLAGS)}
