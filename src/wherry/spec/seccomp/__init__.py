"""Docker's seccomp profiles, and what they become for one container: an OCI `linux.seccomp` object.

Docker's format is OCI's with conditions: an entry applies when the container has certain capabilities, on certain
architectures, from a certain kernel on; and architectures come with those they can also run.

    profile = docker_profile_to_oci(default_profile(), capabilities, "6.18.5", "x86_64")
"""

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument

# uname's machine: (Go's name, as profiles write conditions; libseccomp's, as they write archMap)
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i686": ("386", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}
_KEPT = ("flags", "listenerPath", "listenerMetadata", "defaultErrnoRet")


@functools.cache
def default_profile() -> Mapping[str, Any]:
    """Docker's default profile (of Engine 28.2.2), in Docker's format. Not to be changed."""
    profile: dict[str, Any] = json.loads(Path(__file__).with_name("docker_default.json").read_bytes())
    return profile


@functools.lru_cache(maxsize=64)
def default_oci_profile(capabilities: frozenset[str], kernel_version: str, machine: str) -> Mapping[str, Any]:
    """`docker_profile_to_oci` of the default profile, remembered. Not to be changed."""
    return docker_profile_to_oci(default_profile(), capabilities, kernel_version, machine)


def docker_profile_to_oci(
    profile: Mapping[str, Any], capabilities: Collection[str], kernel_version: str, machine: str
) -> dict[str, Any]:
    """`profile` for a container with these capabilities (its bounding set) on this host (uname's release and machine).

    InvalidArgument, naming the entry, for what is not a profile.
    """
    if not isinstance(profile, Mapping) or not isinstance(profile.get("defaultAction"), str):
        raise InvalidArgument("seccomp profile: defaultAction is missing")
    arch, seccomp_arch = _ARCHITECTURES.get(machine, (machine, ""))
    oci: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    oci.update({name: profile[name] for name in _KEPT if profile.get(name) is not None})
    oci["architectures"] = _architectures(profile, seccomp_arch)
    kernel = _version(kernel_version)
    entries = _list(profile, "syscalls", "")
    oci["syscalls"] = [
        _entry(entry, f"syscalls[{index}]")
        for index, entry in enumerate(entries)
        if _applies(entry, f"syscalls[{index}]", frozenset(capabilities), kernel, arch)
    ]
    return oci


def _architectures(profile: Mapping[str, Any], native: str) -> list[str]:
    listed, mapped = _list(profile, "architectures", ""), _list(profile, "archMap", "")
    if listed and mapped:
        raise InvalidArgument("seccomp profile: architectures and archMap exclude each other", hint="keep one of them")
    for entry in mapped:
        if entry.get("architecture") == native:
            return [native, *_list(entry, "subArchitectures", "archMap.")]
    return listed


def _applies(entry: Any, path: str, capabilities: frozenset[str], kernel: tuple[int, int], arch: str) -> bool:
    if not isinstance(entry, Mapping):
        raise InvalidArgument(f"seccomp profile: {path} must be an object")
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if arch in _list(excludes, "arches", path) or capabilities & set(_list(excludes, "caps", path)):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    wanted = _list(includes, "arches", path)
    if (wanted and arch not in wanted) or not capabilities.issuperset(_list(includes, "caps", path)):
        return False
    return not includes.get("minKernel") or kernel >= _version(includes["minKernel"])


def _entry(entry: Mapping[str, Any], path: str) -> dict[str, Any]:
    names, name = _list(entry, "names", path), entry.get("name")
    if names and name:
        raise InvalidArgument(f"seccomp profile: {path} has both name and names", hint="keep one of them")
    if not isinstance(entry.get("action"), str) or any(not isinstance(one, str) for one in [*names, name or ""]):
        raise InvalidArgument(f"seccomp profile: {path} needs names and an action")
    made: dict[str, Any] = {"names": names or [name], "action": entry["action"]}
    if entry.get("errnoRet") is not None:
        made["errnoRet"] = entry["errnoRet"]
    arguments = _list(entry, "args", path)
    if arguments:
        made["args"] = arguments
    return made


def _list(holder: Mapping[str, Any], name: str, path: str) -> list[Any]:
    found = holder.get(name) if isinstance(holder, Mapping) else 0
    if found is None:
        return []
    if not isinstance(found, list):
        raise InvalidArgument(f"seccomp profile: {path}{'.' if path else ''}{name} must be a list")
    return found


def _version(text: object) -> tuple[int, int]:
    # "6.18.5-amd64" and "4.8" alike: kernel and major revision are what profiles compare.
    major, _, rest = str(text).partition(".")
    minor = "".join(character if character.isdigit() else " " for character in rest).split(" ")[0]
    if not major.isdigit() or not minor:
        raise InvalidArgument(f"seccomp profile: {text!r} is not a kernel version", hint='expected "4.8"')
    return int(major), int(minor)
