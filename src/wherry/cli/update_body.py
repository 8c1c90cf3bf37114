"""From the flags of `update` to the document of POST /containers/{id}/alter."""

from __future__ import annotations

from wherry.cli import create_body
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags

    Document = dict[str, Any]

# flag: field; what was given replaces what the container has
_CONFIG = {
    "domainname": "Domainname",
    "hostname": "Hostname",
    "stop-signal": "StopSignal",
    "stop-timeout": "StopTimeout",
    "user": "User",
    "workdir": "WorkingDir",
}
_HOST = {
    "add-host": "ExtraHosts",
    "device-cgroup-rule": "DeviceCgroupRules",
    "dns": "Dns",
    "dns-option": "DnsOptions",
    "dns-search": "DnsSearch",
    "group-add": "GroupAdd",
    "init": "Init",
    "oom-score-adj": "OomScoreAdj",
    "read-only": "ReadonlyRootfs",
    "shm-size": "ShmSize",
}


def body(flags: Flags, limits: Document, restart: Document) -> Document:
    """Raises InvalidArgument in docker's words."""
    found: Document = {
        "Config": _config(flags),
        "HostConfig": _host(flags),
        "Limits": limits,
        "RestartPolicy": restart if restart["Name"] else None,
        "Env": {"Set": create_body.environment(flags) or [], "Remove": flags["env-rm"]},
        "Labels": {"Set": create_body.labels(flags), "Remove": flags["label-rm"]},
        "Ports": {"Publish": {}, "Unpublish": flags["publish-rm"]},
        "Mounts": {"Remove": flags["volume-rm"], "Mounts": flags["mount"], "Tmpfs": create_body.tmpfs(flags)},
        "LiveOnly": flags["live"],
    }
    if "timeout" in flags:
        found["StopTimeout"] = flags["timeout"]
    if flags["publish"]:
        from wherry.cli.opts_ports import publish

        found["Ports"]["Publish"] = publish(flags["publish"])[1]
    if flags["volume"]:
        from wherry.cli.opts_mounts import volumes

        binds, anonymous = volumes(flags["volume"])
        found["Mounts"] |= {"Binds": binds, "Volumes": list(anonymous)}
    return found


def _config(flags: Flags) -> Document:
    found: Document = {field: flags[flag] for flag, field in _CONFIG.items() if flag in flags}
    if health := create_body.health(flags):
        found["Healthcheck"] = health
    if "entrypoint" in flags:
        found["Entrypoint"] = [flags["entrypoint"]] if flags["entrypoint"] else None
    if "cmd" in flags:
        import shlex

        try:
            found["Cmd"] = shlex.split(flags["cmd"])
        except ValueError as error:
            raise InvalidArgument(f"--cmd: {error}") from None
    return found


def _host(flags: Flags) -> Document:
    found: Document = {field: flags[flag] for flag, field in _HOST.items() if flag in flags}
    for flag, field in (("cap-add", "CapAdd"), ("cap-drop", "CapDrop")):
        if flag in flags:
            found[field] = create_body.capabilities(flags[flag])
    if "ulimit" in flags:
        found["Ulimits"] = create_body.ulimits(flags)
    if "sysctl" in flags:
        found["Sysctls"] = dict(flags["sysctl"])
    if "security-opt" in flags:
        found |= create_body.security(flags["security-opt"])
    if "log-driver" in flags or "log-opt" in flags:
        found["LogConfig"] = {"Type": flags["log-driver"], "Config": create_body.log_options(flags)}
    if "annotation" in flags:
        from wherry.cli.opts_values import as_map

        found["Annotations"] = as_map(flags["annotation"])
    if "device" in flags:
        from wherry.cli.opts_values import device

        found["Devices"] = [device(spec) for spec in flags["device"]]
    return found
