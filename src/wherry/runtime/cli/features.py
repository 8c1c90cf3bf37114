"""features: what this runtime can do, for callers that ask first (runtime-spec features.md)."""

from __future__ import annotations

import json

from wherry import __version__
from wherry.kernel import capabilities, namespaces, seccomp
from wherry.runtime import options as mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.runtime.cli.commands import Context
    from wherry.runtime.cli.flags import Options

_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def features(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """Print the document."""
    print(json.dumps(document(), indent=4))
    return 0


def document() -> dict[str, Any]:
    """The features structure."""
    flags = list(seccomp.flag_names())
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": list(_HOOKS),
        "mountOptions": sorted(mount_options.names()),
        "linux": {
            "namespaces": list(namespaces.FLAG_OF),
            "capabilities": list(capabilities.BIT_OF),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": list(seccomp.actions()),
                "operators": list(seccomp.operators()),
                "archs": [f"SCMP_ARCH_{name}" for name in seccomp.ARCHITECTURES],
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"io.wherry.runtime.version": __version__},
    }
