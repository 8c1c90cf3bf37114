"""Taking over settings while running, and telling who listens (docker's `reload` event)."""

import json
import os

from wherry.engine.config import DaemonConfig
from wherry.engine.core import Core
from wherry.engine.system import load_id
from wherry.images.endpoints import RegistryConfig


def reconfigure(core: Core, config: DaemonConfig) -> None:
    """From now on `config` holds. Only what can change while running may differ from the one before."""
    core.config = config
    registries: RegistryConfig = core.parts.images.registries
    registries.insecure = config.insecure_registries
    registries.mirrors = config.registry_mirrors
    registries.downloads = config.max_downloads
    registries.uploads = config.max_uploads
    registries.attempts = config.max_download_attempts
    core.events.emit("daemon", "reload", load_id(config.data_root / "engine-id"), _attributes(config))


def _attributes(config: DaemonConfig) -> dict[str, str]:
    features = " ".join(f"{name}:{_word(on)}" for name, on in sorted(config.features.items()))
    return {
        "authorization-plugins": _list(config.authorization_plugins),
        "debug": _word(config.debug),
        "default-cgroupns-mode": "private",
        "default-ipc-mode": "private",
        "default-runtime": config.default_runtime,
        "default-shm-size": str(config.default_shm_size),
        "features": f"map[{features}]",
        "insecure-registries": _list(config.insecure_registries),
        "labels": _list(config.labels),
        "live-restore": _word(config.live_restore),
        "max-concurrent-downloads": str(config.max_downloads),
        "max-concurrent-uploads": str(config.max_uploads),
        "max-download-attempts": str(config.max_download_attempts),
        "name": os.uname().nodename,
        "registry-mirrors": _list(config.registry_mirrors),
        "runtimes": " ".join(f"{name}:{path}" for name, path in sorted(config.runtimes.items())),
        "shutdown-timeout": str(config.shutdown_timeout),
    }


def _word(on: bool) -> str:
    return "true" if on else "false"


def _list(values: tuple[str, ...]) -> str:
    return json.dumps(list(values), separators=(",", ":"))
