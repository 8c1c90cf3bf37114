"""Containers as docker's list shows them. Each summary's JSON is kept until its container changes.

What moves with the clock (Status) or with others' names (Image) is put between the kept pieces.
"""

import json
import time
from collections.abc import Iterable

from wherry.engine import attachments
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.health import shown
from wherry.engine.mount_specs import shown_mounts
from wherry.engine.ports import shown_ports
from wherry.engine.records import Definition, State
from wherry.errors import WherryError


def write_summaries(core: Core, containers: Iterable[Container], sizes: dict[str, int] | None) -> bytes:
    """The JSON array; `sizes`: bytes of each writable layer, to be shown."""
    now = time.time_ns()
    names = _ImageNames(core)
    rows = [_summary(container, names, now, sizes) for container in containers]
    return b"[" + b",".join(rows) + b"]\n"


def _summary(container: Container, names: "_ImageNames", now: int, sizes: dict[str, int] | None) -> bytes:
    first, second, third, last = container.pieces or _pieces(container)
    size = b""
    if sizes is not None:
        written = sizes.get(container.id, 0)
        size = f'"SizeRw":{written},"SizeRootFs":{written + container.definition.image_size},'.encode()
    status = json.dumps(status_text(container.state, now) + _health_text(container)).encode()
    return b"".join((first, names.shown(container.definition), second, size, third, status, last))


def _pieces(container: Container) -> tuple[bytes, bytes, bytes, bytes]:
    definition = container.definition
    command = " ".join((definition.path, *definition.args))
    before = {"Id": definition.id, "Names": [f"/{definition.name}"]}
    middle = {
        "ImageID": definition.image_id,
        "Command": command,
        "Created": definition.created_ns // 1_000_000_000,
        "Ports": shown_ports(definition.config.exposed_ports, container.ports) if container.state.running else [],
    }
    late = {"Labels": definition.config.labels or {}, "State": container.state.shown_status}
    annotations = {"Annotations": dict(definition.host.annotations)} if definition.host.annotations else {}
    after = {
        "HostConfig": {"NetworkMode": definition.host.network_mode, **annotations},
        "NetworkSettings": {"Networks": attachments.shown(container)},
        "Mounts": shown_mounts(definition.mounts),
    }
    made = (
        _dump(before)[:-1] + b',"Image":',
        b"," + _dump(middle)[1:-1] + b",",
        _dump(late)[1:-1] + b',"Status":',
        b"," + _dump(after)[1:],
    )
    container.pieces = made
    return made


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")


class _ImageNames:
    """How a container's image is shown: as it was asked for, or by its id once that name means another one."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._current: dict[str, str | None] = {}

    def shown(self, definition: Definition) -> bytes:
        name = definition.config.image
        if name not in self._current:
            try:
                self._current[name] = self._core.parts.images.resolve(name).id
            except WherryError:
                self._current[name] = None
        return json.dumps(name if self._current[name] == definition.image_id else definition.image_id).encode()


def status_text(state: State, now: int) -> str:
    """docker's "Up 3 minutes", "Exited (0) 2 hours ago"."""
    if state.status == "paused":
        return f"Up {duration(now - state.started_ns)} (Paused)"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {duration(now - state.finished_ns)} ago"
    if state.status == "running":
        return f"Up {duration(now - state.started_ns)}"
    if state.status == "removing":
        return "Removal In Progress"
    if state.status == "dead":
        return "Dead"
    if not state.started_ns:
        return "Created"
    return f"Exited ({state.exit_code}) {duration(now - state.finished_ns)} ago"


def _health_text(container: Container) -> str:
    return shown(container.health) if container.state.status == "running" else ""


def duration(ns: int) -> str:
    """Rounded as docker does."""
    seconds = max(0, ns) // 1_000_000_000
    if seconds < 60:
        return "Less than a second" if seconds < 1 else "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, hours_each in (
        (24 * 14, "days", 24),
        (24 * 60, "weeks", 24 * 7),
        (24 * 365 * 2, "months", 24 * 30),
    ):
        if hours < limit:
            return f"{hours // hours_each} {unit}"
    return f"{int(seconds / 3600) // (24 * 365)} years"
