"""The daemon about itself: version and info."""

import asyncio
import os
import platform
import re
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import wherry
from wherry.engine import apparmor
from wherry.engine.core import Core
from wherry.kernel.cgroups import layout
from wherry.logs.options import DRIVERS
from wherry.spec.platform import host_platform

API_VERSION, MIN_API_VERSION = "1.50", "1.24"
_FEATURES = ("memory", "cpu", "cpuset", "pids")


def version() -> dict[str, Any]:
    """Docker's version document."""
    uname = os.uname()
    arch = host_platform().architecture
    details = {
        "ApiVersion": API_VERSION,
        "Arch": arch,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"python{platform.python_version()}",
        "KernelVersion": uname.release,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Wherry"},
        "Components": [
            {"Name": "Engine", "Version": wherry.__version__, "Details": details},
            {"Name": "wherry-runtime", "Version": wherry.__version__, "Details": {"GitCommit": ""}},
        ],
        "Version": wherry.__version__,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": "",
        "GoVersion": details["GoVersion"],
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": uname.release,
        "BuildTime": "",
    }


def load_id(path: Path) -> str:
    """This installation's id, made once."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{uuid.uuid4()}\n")
        return path.read_text().strip()


async def info(core: Core) -> dict[str, Any]:
    """Docker's info document."""
    statuses = [container.state.shown_status for container in core.index]
    images = await asyncio.to_thread(core.parts.images.list)
    devices = [{"Source": "cdi", "ID": name} for name in await asyncio.to_thread(core.cdi.names)]
    config, uname, cgroups = core.config, os.uname(), layout()
    version1 = cgroups.version == 1
    held = set(cgroups.v1) if version1 else set(_read("/sys/fs/cgroup/cgroup.controllers").split())
    return {
        "ID": load_id(config.data_root / "engine-id"),
        "Containers": len(statuses),
        "ContainersRunning": statuses.count("running") + statuses.count("restarting"),
        "ContainersPaused": statuses.count("paused"),
        "ContainersStopped": sum(status in ("created", "exited", "dead") for status in statuses),
        "Images": len(images),
        "Driver": core.parts.snapshots.name,
        "DriverStatus": [],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": list(config.authorization_plugins) or None,
            "Log": list(DRIVERS),
        },
        "MemoryLimit": "memory" in held,
        "SwapLimit": "memory" in held,
        "KernelMemoryTCP": version1,
        "CpuCfsPeriod": "cpu" in held,
        "CpuCfsQuota": "cpu" in held,
        "CPUShares": "cpu" in held,
        "CPUSet": "cpuset" in held,
        "PidsLimit": "pids" in held,
        "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward").strip() == "1",
        "Debug": config.debug,
        "NFd": len(os.listdir("/proc/self/fd")),
        "OomKillDisable": version1,
        "NGoroutines": len(asyncio.all_tasks()),
        "SystemTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z",
        "LoggingDriver": config.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(cgroups.version),
        "NEventsListener": core.events.listeners,
        "KernelVersion": uname.release,
        "OperatingSystem": _operating_system(),
        "OSVersion": _os_release().get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": uname.machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(core),
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "GenericResources": None,
        "DockerRootDir": str(config.data_root),
        "HttpProxy": _hide_password(config.http_proxy or os.environ.get("HTTP_PROXY", "")),
        "HttpsProxy": _hide_password(config.https_proxy or os.environ.get("HTTPS_PROXY", "")),
        "NoProxy": config.no_proxy or os.environ.get("NO_PROXY", ""),
        "Name": uname.nodename,
        "Labels": list(config.labels),
        "ExperimentalBuild": False,
        "ServerVersion": wherry.__version__,
        "Runtimes": {"wherry": {"path": "wherry-runtime"}}
        | {name: {"path": path} for name, path in sorted(config.runtimes.items())},
        "DefaultRuntime": config.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": config.live_restore,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": security_options(core.remap is not None, version1=version1),
        "FirewallBackend": {"Driver": "nftables"},
        "CDISpecDirs": [str(path) for path in core.cdi.directories],
        **({"DiscoveredDevices": devices} if devices else {}),
        "Warnings": list(config.warnings) or None,
    }


def security_options(remapped: bool, *, version1: bool) -> list[str]:
    """What keeps containers in, as docker names it."""
    found = ["name=apparmor"] if apparmor.is_enabled() else []
    found.append("name=seccomp,profile=builtin")
    return found + (["name=userns"] if remapped else []) + ([] if version1 else ["name=cgroupns"])


def _registries(core: Core) -> dict[str, Any]:
    mirrors = list(core.config.registry_mirrors)
    insecure = list(core.config.insecure_registries)
    hub = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
    others = {
        name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in insecure if "/" not in name
    }
    networks = [name for name in insecure if re.fullmatch(r"[0-9a-fA-F.:]+/\d+", name)]
    return {
        "IndexConfigs": {"docker.io": hub, **others},
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *networks],
        "Mirrors": mirrors or None,
    }


def _hide_password(url: str) -> str:
    """A proxy's address as everyone may see it."""
    return re.sub(r"//[^/@]*@", "//xxxxx:xxxxx@", url)


def _operating_system() -> str:
    release = _os_release()
    return release.get("PRETTY_NAME") or release.get("NAME") or sys.platform


def _os_release() -> dict[str, str]:
    found = {}
    for line in (_read("/etc/os-release") or _read("/usr/lib/os-release")).splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = value.strip("\"'")
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
