"""AppArmor: whether the kernel has it, and the profile of containers that name none.

The default profile goes by docker's name for it, so that what refers to it goes on to work, and is loaded once per
boot by apparmor_parser(8) when nobody has done so. It allows what capabilities, namespaces and seccomp do not already
decide, and denies writing to what in /proc and /sys is the host's, mounting, and tracing what is not a container's.
"""

import functools
import subprocess
from pathlib import Path

from wherry.errors import FailedPrecondition

DEFAULT = "docker-default"
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
_LOADED = Path("/sys/kernel/security/apparmor/profiles")
_PARSE_SECONDS = 30


@functools.cache
def is_enabled() -> bool:
    """Whether this kernel runs AppArmor and shows its profiles."""
    try:
        return _ENABLED.read_text().startswith("Y") and _LOADED.exists()
    except OSError:
        return False


def require(profile: str) -> None:
    """FailedPrecondition when `profile` is not loaded; the default one is loaded when it lacks. In a thread."""
    if profile in _loaded():
        return
    if profile != DEFAULT:
        raise FailedPrecondition(
            f"the AppArmor profile {profile!r} is not loaded", object=profile, hint="load it with apparmor_parser"
        )
    try:
        result = subprocess.run(
            ["apparmor_parser", "-Kr"],
            input=_render(DEFAULT),
            capture_output=True,
            text=True,
            timeout=_PARSE_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise FailedPrecondition(
            f"AppArmor is enabled, but the default profile cannot be loaded: {error}",
            object=profile,
            hint="install apparmor_parser (package apparmor), or use --security-opt apparmor=unconfined",
        ) from None
    if result.returncode:
        raise FailedPrecondition(f"apparmor_parser refused the default profile: {result.stderr.strip()}")


def _loaded() -> set[str]:
    try:
        return {line.rpartition(" (")[0] for line in _LOADED.read_text().splitlines()}
    except OSError:
        return set()


def _render(name: str) -> str:
    # Of /proc only what belongs to a process, of /proc/sys only kernel/shm* (which are the container's own).
    denied = "\n".join(
        f"  deny {path},"
        for path in (
            "@{PROC}/* w",
            "@{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}/** w",
            "@{PROC}/sys/[^k]** w",
            "@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w",
            "@{PROC}/sysrq-trigger rwklx",
            "@{PROC}/kcore rwklx",
            "/sys/[^f]*/** wklx",
            "/sys/f[^s]*/** wklx",
            "/sys/fs/[^c]*/** wklx",
            "/sys/fs/c[^g]*/** wklx",
            "/sys/fs/cg[^r]*/** wklx",
            "/sys/firmware/** rwklx",
            "/sys/devices/virtual/powercap/** rwklx",
            "/sys/kernel/security/** rwklx",
        )
    )
    return f"""#include <tunables/global>

profile {name} flags=(attach_disconnected,mediate_deleted) {{
  #include <abstractions/base>
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send,receive) peer={name},
  ptrace (trace,read,tracedby,readby) peer={name},
  deny mount,
{denied}
}}
"""
