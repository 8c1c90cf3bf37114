"""From the flags of `create` and `run` to the document of POST /containers/create, as docker's client fills it."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags

    Document = dict[str, Any]


def body(flags: Flags, image: str, command: list[str]) -> Document:
    """Raises InvalidArgument in docker's words."""
    attached = set(flags["attach"])
    stdin = flags["interactive"] or "stdin" in attached
    config: Document = {
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        "AttachStdin": stdin,
        "AttachStdout": not attached or "stdout" in attached,
        "AttachStderr": not attached or "stderr" in attached,
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags["interactive"] and stdin,
        "Env": environment(flags),
        "Cmd": command or None,
        "Image": image,
        "Volumes": {},
        "WorkingDir": flags["workdir"],
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": labels(flags),
    }
    if "entrypoint" in flags:
        config["Entrypoint"] = [flags["entrypoint"]]
    if flags["stop-signal"]:
        config["StopSignal"] = flags["stop-signal"]
    if "stop-timeout" in flags:
        config["StopTimeout"] = flags["stop-timeout"]
    if check := health(flags):
        config["Healthcheck"] = check
    host = _host(flags)
    _ports(flags, config, host)
    _mounts(flags, config, host)
    from wherry.cli.opts_network import endpoints

    mode, networks = endpoints(flags)
    host["NetworkMode"] = mode
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": networks}}


def environment(flags: Flags) -> list[str] | None:
    if not flags["env-file"]:
        return flags["env"] or None
    from wherry.cli.opts_values import expand_files

    return expand_files(flags["env-file"], flags["env"], True) or None


def labels(flags: Flags) -> dict[str, str]:
    if not flags["label"] and not flags["label-file"]:
        return {}
    from wherry.cli.opts_values import as_map, expand_files

    return as_map(expand_files(flags["label-file"], flags["label"], False))


def health(flags: Flags) -> Document:
    names = (
        "health-cmd",
        "health-interval",
        "health-timeout",
        "health-start-period",
        "health-start-interval",
        "health-retries",
        "health-on-failure",
    )
    given = [name for name in names if flags[name]]
    if flags["no-healthcheck"]:
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    found: Document = {}
    if flags["health-cmd"]:
        found["Test"] = ["CMD-SHELL", flags["health-cmd"]]
    fields = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    if flags["health-on-failure"]:
        found["OnFailure"] = flags["health-on-failure"]
    for name, field in zip(names[1:-1], fields, strict=True):
        if flags[name] < 0:
            raise InvalidArgument(f"--{name} cannot be negative")
        if flags[name]:
            found[field] = flags[name]
    return found


def _host(flags: Flags) -> Document:
    swappiness = flags["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise InvalidArgument(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    host: Document = {
        "Binds": None,
        "ContainerIDFile": flags["cidfile"],
        "LogConfig": {"Type": flags["log-driver"], "Config": log_options(flags)},
        "NetworkMode": "",
        "PortBindings": {},
        "RestartPolicy": restart_policy(flags["restart"]),
        "AutoRemove": flags["rm"],
        "VolumeDriver": flags["volume-driver"],
        "VolumesFrom": flags["volumes-from"] or None,
        "ConsoleSize": [0, 0],
        "CapAdd": capabilities(flags["cap-add"]),
        "CapDrop": capabilities(flags["cap-drop"]),
        "CgroupnsMode": _mode(flags, "cgroupns", "CGROUP", ("host", "private")),
        "Dns": flags["dns"],
        "DnsOptions": flags["dns-option"],
        "DnsSearch": flags["dns-search"],
        "ExtraHosts": flags["add-host"] or None,
        "GroupAdd": flags["group-add"] or None,
        "IpcMode": flags["ipc"],
        "Cgroup": "",
        "Links": flags["link"] or None,
        "OomScoreAdj": flags["oom-score-adj"],
        "PidMode": _mode(flags, "pid", "PID", ("host",), "container:"),
        "Privileged": flags["privileged"],
        "PublishAllPorts": flags["publish-all"],
        "ReadonlyRootfs": flags["read-only"],
        "UTSMode": _mode(flags, "uts", "UTS", ("host",)),
        "UsernsMode": _mode(flags, "userns", "USER", ("host",)),
        "ShmSize": flags["shm-size"],
        "Isolation": flags["isolation"],
        **_resources(flags),
        "SecurityOpt": None,
        "MaskedPaths": None,
        "ReadonlyPaths": None,
    }
    if flags["security-opt"]:
        host |= security(flags["security-opt"])
    _optional(flags, host)
    if host["AutoRemove"] and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
    return host


def _resources(flags: Flags) -> Document:
    return {
        "CpuShares": flags["cpu-shares"],
        "Memory": flags["memory"],
        "NanoCpus": flags["cpus"] or 0,
        "CgroupParent": flags["cgroup-parent"],
        "BlkioWeight": flags["blkio-weight"],
        "BlkioWeightDevice": flags["blkio-weight-device"],
        "BlkioDeviceReadBps": flags["device-read-bps"],
        "BlkioDeviceWriteBps": flags["device-write-bps"],
        "BlkioDeviceReadIOps": flags["device-read-iops"],
        "BlkioDeviceWriteIOps": flags["device-write-iops"],
        "CpuPeriod": flags["cpu-period"],
        "CpuQuota": flags["cpu-quota"],
        "CpuRealtimePeriod": flags["cpu-rt-period"],
        "CpuRealtimeRuntime": flags["cpu-rt-runtime"],
        "CpusetCpus": flags["cpuset-cpus"],
        "CpusetMems": flags["cpuset-mems"],
        "Devices": [],
        "DeviceCgroupRules": flags["device-cgroup-rule"] or None,
        "DeviceRequests": None,
        "MemoryReservation": flags["memory-reservation"],
        "MemorySwap": flags["memory-swap"],
        "MemorySwappiness": flags["memory-swappiness"],
        "OomKillDisable": flags["oom-kill-disable"],
        "PidsLimit": flags["pids-limit"],
        "Ulimits": ulimits(flags),
        "CpuCount": flags["cpu-count"],
        "CpuPercent": flags["cpu-percent"],
        "IOMaximumIOps": flags["io-maxiops"],
        "IOMaximumBandwidth": flags["io-maxbandwidth"],
    }


def _optional(flags: Flags, host: Document) -> None:
    """Fields that are left out when their flag is."""
    if flags["device"]:
        _devices(flags["device"], host)
    if flags["gpus"]:
        host["DeviceRequests"] = [*flags["gpus"], *(host["DeviceRequests"] or ())]
    if flags["tmpfs"]:
        host["Tmpfs"] = tmpfs(flags)
    if flags["sysctl"]:
        host["Sysctls"] = dict(flags["sysctl"])
    if flags["annotation"]:
        from wherry.cli.opts_values import as_map

        host["Annotations"] = as_map(flags["annotation"])
    if "init" in flags:
        host["Init"] = flags["init"]
    if flags["runtime"]:
        host["Runtime"] = flags["runtime"]
    if flags["storage-opt"]:
        if not all("=" in option for option in flags["storage-opt"]):
            raise InvalidArgument("invalid storage option")
        host["StorageOpt"] = dict(option.split("=", 1) for option in flags["storage-opt"])


def tmpfs(flags: Flags) -> dict[str, str]:
    return {path: options for path, _, options in (text.partition(":") for text in flags["tmpfs"])}


def ulimits(flags: Flags) -> list[Document]:
    """The last of a name counts."""
    return [limit for _, limit in sorted({limit["Name"]: limit for limit in flags["ulimit"]}.items())]


def capabilities(names: list[str]) -> list[str] | None:
    """In upper case, with CAP_ before all but ALL, sorted."""
    upper = {name.upper() for name in names}
    return (
        sorted(name if name in ("ALL", "RESET") or name.startswith("CAP_") else f"CAP_{name}" for name in upper) or None
    )


def _devices(specs: list[str], host: Document) -> None:
    from wherry.cli.opts_values import device

    names = [spec for spec in specs if _is_cdi(spec)]
    host["Devices"] = [device(spec) for spec in specs if spec not in names]
    if names:
        host["DeviceRequests"] = [
            {"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None}
        ]


def _is_cdi(spec: str) -> bool:
    """vendor.example/class=device"""
    kind, equals, name = spec.partition("=")
    vendor, slash, family = kind.partition("/")
    return bool(equals and slash and vendor and family and name) and not spec.startswith("/")


def _mode(flags: Flags, name: str, title: str, allowed: tuple[str, ...], prefix: str = "") -> str:
    value = str(flags[name])
    if value and value not in allowed and not (prefix and value.startswith(prefix) and value != prefix):
        raise InvalidArgument(f"--{name}: invalid {title} mode")
    return value


def log_options(flags: Flags) -> dict[str, str]:
    if not flags["log-opt"]:
        return {}
    from wherry.cli.opts_values import as_map

    if flags["log-driver"] == "none":
        raise InvalidArgument("invalid logging opts for driver none")
    return as_map(flags["log-opt"])


def restart_policy(policy: str) -> Document:
    name, colon, count = policy.partition(":")
    if colon and not name:
        raise InvalidArgument("invalid restart policy format: no policy provided before colon")
    try:
        return {"Name": name, "MaximumRetryCount": int(count) if count else 0}
    except ValueError:
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer") from None


def security(options: list[str]) -> Document:
    result: Document = {}
    kept: list[str] = []
    for option in options:
        name, found, value = option.partition("=")
        if not found and name != "no-new-privileges":
            name, found, value = option.partition(":")
            if not found:
                raise InvalidArgument(f'Invalid --security-opt: "{option}"')
        if option == "systempaths=unconfined":
            result = {"MaskedPaths": [], "ReadonlyPaths": []}
        elif name == "seccomp" and value not in ("builtin", "unconfined"):
            kept.append("seccomp=" + _seccomp(value))
        else:
            kept.append(option)
    return {**result, "SecurityOpt": kept}


def _seccomp(path: str) -> str:
    from wherry.client.codec import dumps, loads

    try:
        with open(path, "rb") as file:
            return dumps(loads(file.read()))
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from None
    except ValueError as error:
        raise InvalidArgument(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def _ports(flags: Flags, config: Document, host: Document) -> None:
    if flags["publish"] or flags["expose"]:
        from wherry.cli.opts_ports import expose, publish

        exposed, host["PortBindings"] = publish(flags["publish"])
        config["ExposedPorts"] = {**exposed, **expose(flags["expose"])}


def _mounts(flags: Flags, config: Document, host: Document) -> None:
    if flags["volume"]:
        from wherry.cli.opts_mounts import volumes

        binds, config["Volumes"] = volumes(flags["volume"])
        host["Binds"] = binds or None
    if flags["mount"]:
        host["Mounts"] = flags["mount"]
