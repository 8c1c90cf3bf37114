"""A container's log as the logger and the reader need it: driver, file, what is told of the container."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.records import rfc3339
from wherry.errors import Unimplemented
from wherry.logs.info import file_attributes
from wherry.logs.options import DRIVERS
from wherry.logs.plugin_reader import read_plugin
from wherry.logs.reader import LogRecord, read_log
from wherry.logs.target import FILES, LogTarget
from wherry.spec.docker import LogConfig
from wherry.spec.fastjson import dumps

# Options that ask for something about the container in each record of a file.
_TELLING = frozenset(("tag", "labels", "labels-regex", "env", "env-regex"))


def with_default_log(core: Core, config: LogConfig) -> LogConfig:
    """A container's log configuration over the daemon's, as docker merges them: options only for the same driver."""
    driver = config.type or core.config.log_driver
    if driver != core.config.log_driver:
        return config
    return LogConfig(type=driver, config={**core.config.log_options, **(config.config or {})})


def log_target(core: Core, container: Container) -> LogTarget:
    """Where its output goes."""
    config, log = container.definition.config, container.definition.host.log_config
    options = log.config or {}
    target = LogTarget(log.type, "", options, config.tty, config.stdin_once)
    if log.type == "none":
        return target
    if target.delivered:
        target.info = _info(core, container)
        target.cursor = str(core.config.exec_root / "shipping" / f"{container.id}.cursor")
    elif not _TELLING.isdisjoint(options):
        found = file_attributes(_info(core, container), options)
        target.attributes = dumps(found) if found else ""
    target.path = str(log_path(core, container, target))
    return target


def log_path(core: Core, container: Container, target: LogTarget) -> Path:
    """The file of it: the log itself, the copy kept for `logs`, or what is not delivered yet."""
    if target.driver == "json-file":
        return core.log_path(container.id)
    directory = core.directory(container.id) / "local-logs"
    if target.driver == "local":
        return directory / "container.log"
    if target.cached:
        return directory / "container-cached.log"
    return core.config.exec_root / "spool" / container.id / "container.log"


def read(
    core: Core,
    container: Container,
    *,
    since: int,
    until: int,
    tail: int | None,
    follow: bool,
    still_running: Callable[[], bool],
) -> AsyncIterator[LogRecord]:
    """Its records; Unimplemented when its driver keeps none: raised at the call, by a plugin at the first item."""
    target = log_target(core, container)
    if target.driver not in FILES and (target.driver == "none" or not target.cached):
        if target.driver not in DRIVERS:
            return read_plugin(target, since=since, until=until, tail=tail, follow=follow)
        raise Unimplemented("configured logging driver does not support reading", object=container.id)
    return read_log(
        Path(target.path),
        since=since,
        until=until,
        tail=tail,
        follow=follow,
        still_running=still_running,
        paged=target.driver != "json-file",
    )


def _info(core: Core, container: Container) -> dict[str, Any]:
    definition = container.definition
    return {
        "Config": dict(definition.host.log_config.config or {}),
        "ContainerID": definition.id,
        "ContainerName": f"/{definition.name}",
        "ContainerEntrypoint": definition.path,
        "ContainerArgs": list(definition.args),
        "ContainerImageID": str(definition.image_id),
        "ContainerImageName": definition.config.image,
        "ContainerCreated": rfc3339(definition.created_ns),
        "ContainerEnv": list(definition.config.env or ()),
        "ContainerLabels": dict(definition.config.labels or {}),
        "LogPath": "",
        "DaemonName": "docker",
    }
