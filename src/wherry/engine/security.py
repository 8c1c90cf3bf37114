"""What a container's processes may do: capabilities, seccomp, no_new_privs, masked paths. Docker's defaults."""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wherry.engine import apparmor
from wherry.errors import InvalidArgument
from wherry.kernel.capabilities import BIT_OF
from wherry.spec.docker import HostConfig
from wherry.spec.seccomp import default_oci_profile, docker_profile_to_oci

_DEFAULT_NAMES = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
DEFAULT_CAPABILITIES = tuple(f"CAP_{name}" for name in _DEFAULT_NAMES.split())
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_MAX_PROFILE = 4 << 20


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """--security-opt, parsed. `seccomp`: "" the default profile, "unconfined", or a profile as JSON.

    `writable_cgroups` None: as privileged says. `apparmor`: "" the default profile. `labels`: SELinux's, "disable"
    among them.
    """

    seccomp: str = ""
    no_new_privileges: bool = False
    unmask_system: bool = False
    writable_cgroups: bool | None = None
    apparmor: str = ""
    labels: tuple[str, ...] = ()


def parse_security_options(options: Sequence[str] | None) -> SecurityOptions:
    """InvalidArgument for what is no option, in docker's words; of an option given twice the last counts."""
    if not options:
        return _NO_OPTIONS
    return _parse_options(tuple(options))


_NO_OPTIONS = SecurityOptions()


@functools.lru_cache(maxsize=32)
def _parse_options(options: tuple[str, ...]) -> SecurityOptions:
    found: dict[str, Any] = {}
    labels: list[str] = []
    for option in options:
        # The old form with a colon is still accepted by docker.
        separator = "=" if "=" in option else ":"
        name, given, value = option.partition(separator)
        if not given and option in _SWITCHES:
            found[_SWITCHES[option]] = True
        elif not given:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"', object=option)
        elif name in _SWITCHES:
            found[_SWITCHES[name]] = _parse_bool(option, value)
        elif name == "seccomp":
            found["seccomp"] = _check_profile(value)
        elif name == "apparmor":
            found["apparmor"] = value
        elif name == "label":
            labels.append(value)
        elif option == "systempaths=unconfined":
            found["unmask_system"] = True
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"', object=option)
    return SecurityOptions(**found, labels=tuple(labels))


_SWITCHES = {"no-new-privileges": "no_new_privileges", "writable-cgroups": "writable_cgroups"}
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def _parse_bool(option: str, value: str) -> bool:
    if value not in _TRUE + _FALSE:
        raise InvalidArgument(f'invalid --security-opt 2: "{option}"', object=option)
    return value in _TRUE


def _check_profile(value: str) -> str:
    if value == "builtin":
        return ""
    if value in ("", "unconfined"):
        return value
    if len(value) > _MAX_PROFILE:
        raise InvalidArgument("the seccomp profile is larger than 4 MiB")
    _compile_profile(value, frozenset())
    return value


@functools.lru_cache(maxsize=256)
def capabilities(add: tuple[str, ...], drop: tuple[str, ...], privileged: bool) -> tuple[str, ...]:
    """The bounding set for --cap-add and --cap-drop; InvalidArgument for unknown names."""
    added = [_capability(name, "CapAdd") for name in add]
    dropped = [_capability(name, "CapDrop") for name in drop]
    if privileged:
        return supported_capabilities()
    base: tuple[str, ...] = supported_capabilities() if "ALL" in added else DEFAULT_CAPABILITIES
    if "ALL" in dropped:
        base = ()
    kept = [name for name in base if name not in dropped and name in supported_capabilities()]
    return tuple(dict.fromkeys([*kept, *(name for name in added if name != "ALL")]))


def _capability(text: str, option: str) -> str:
    name = text.upper()
    if name == "ALL":
        return name
    full = name if name.startswith("CAP_") else f"CAP_{name}"
    if full not in BIT_OF:
        raise InvalidArgument(f'invalid {option}: unknown capability: "{full}"', object=text)
    if full not in supported_capabilities():
        raise InvalidArgument(
            f"invalid {option}: capability not supported by your kernel or not available in the current environment: "
            f'"{full}"',
            object=text,
        )
    return full


@functools.cache
def supported_capabilities() -> tuple[str, ...]:
    """Those this daemon may give: what its own bounding set holds."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("CapBnd:"))
    held = int(line.split()[1], 16)
    return tuple(name for name, bit in BIT_OF.items() if held >> bit & 1)


def seccomp_json(options: SecurityOptions, bounding: tuple[str, ...], privileged: bool) -> str | None:
    """`linux.seccomp` as JSON text, None for no filter. Remembered: it is the larger part of every configuration."""
    if options.seccomp == "unconfined" or (privileged and not options.seccomp):
        return None
    return _compile_profile(options.seccomp, frozenset(bounding))


@functools.lru_cache(maxsize=32)
def _compile_profile(text: str, bounding: frozenset[str]) -> str:
    uname = os.uname()
    if not text:
        return json.dumps(default_oci_profile(bounding, uname.release, uname.machine), separators=(",", ":"))
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}", object="seccomp") from None
    return json.dumps(docker_profile_to_oci(profile, bounding, uname.release, uname.machine), separators=(",", ":"))


def confinement_warnings(options: SecurityOptions) -> list[str]:
    """What is asked of security modules this machine does not have: docker leaves it out without a word."""
    found = []
    if options.apparmor not in ("", "unconfined") and not apparmor.is_enabled():
        found.append(f"AppArmor is not enabled on this machine: the profile {options.apparmor!r} is not applied.")
    labels = [label for label in options.labels if label != "disable"]
    if labels:
        found.append(f"SELinux is not enabled: label={labels[0]} has no effect.")
    return found


def apparmor_profile(options: SecurityOptions, privileged: bool) -> str:
    """The AppArmor profile a container runs under, "" for none."""
    if not apparmor.is_enabled() or options.apparmor == "unconfined":
        return ""
    return options.apparmor or ("" if privileged else apparmor.DEFAULT)


def masked_paths(host: HostConfig, options: SecurityOptions) -> tuple[str, ...]:
    """What to hide; as given, or docker's defaults unless privileged."""
    if host.masked_paths is not None:
        return host.masked_paths
    return () if host.privileged or options.unmask_system else MASKED_PATHS + _thermal_paths()


def readonly_paths(host: HostConfig, options: SecurityOptions) -> tuple[str, ...]:
    """What to make read-only; as given, or docker's defaults unless privileged."""
    if host.readonly_paths is not None:
        return host.readonly_paths
    return () if host.privileged or options.unmask_system else READONLY_PATHS


@functools.cache
def _thermal_paths() -> tuple[str, ...]:
    # Counters that tell one container about another's load; only where the hardware has them.
    base = "/sys/devices/system/cpu"
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return ()
    found = (f"{base}/{name}/thermal_throttle" for name in names if name[:3] == "cpu" and name[3:].isdigit())
    return tuple(path for path in found if os.path.exists(path))
