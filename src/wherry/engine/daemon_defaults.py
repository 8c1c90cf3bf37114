"""What the daemon's settings decide for containers that say nothing about it."""

from collections.abc import Sequence

from wherry.engine.config import DaemonConfig
from wherry.spec.docker import HostConfig


def security_options(config: DaemonConfig, host: HostConfig) -> tuple[str, ...] | None:
    """A container's security options with the daemon's own for what they leave open; its inspect shows them."""
    given = tuple(host.security_opt or ())
    added = []
    if config.no_new_privileges and not _names(given, "no-new-privileges"):
        added.append("no-new-privileges")
    # A privileged container has no filter unless it asks for one.
    if config.seccomp_profile and not host.privileged and not _names(given, "seccomp"):
        added.append(f"seccomp={config.seccomp_profile}")
    return (*given, *added) if added else host.security_opt


def _names(options: Sequence[str], name: str) -> bool:
    return any(option == name or option.startswith((f"{name}=", f"{name}:")) for option in options)
