"""The filters of the container list, on containers themselves: documents are made only of those that fit."""

from collections.abc import Callable, Mapping, Sequence

from wherry.engine import attachments
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.health import fits
from wherry.engine.ports import expand_ports
from wherry.errors import InvalidArgument, NotFound

Filters = Mapping[str, Sequence[str]]
Test = Callable[[Container], bool]

_KNOWN = frozenset(
    (
        "ancestor",
        "before",
        "since",
        "exited",
        "expose",
        "publish",
        "health",
        "id",
        "isolation",
        "is-task",
        "label",
        "name",
        "network",
        "status",
        "volume",
    )
)
_STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")


def select(core: Core, filters: Filters, *, all: bool) -> list[Container]:
    """Those that fit, newest first; without `all` only those that run, unless a filter speaks of others."""
    for name in filters:
        if name not in _KNOWN:
            raise InvalidArgument(f"invalid filter '{name}'", object=name)
    tests = [_TESTS[name](core, values) for name, values in filters.items() if values]
    if not all and not (filters.keys() & {"status", "exited", "before", "since"}):
        tests.insert(0, lambda container: container.state.running)
    found = [container for container in core.index if _fits(container, tests)]
    found.sort(key=lambda container: container.definition.created_ns, reverse=True)
    return found


def _fits(container: Container, tests: Sequence[Test]) -> bool:
    return all(test(container) for test in tests)


def _ancestor(core: Core, values: Sequence[str]) -> Test:
    ids: set[str] = set()
    chains: set[str] = set()
    for value in values:
        try:
            image = core.parts.images.resolve(value)
        except NotFound:
            continue
        ids.add(image.id)
        if image.chain:
            chains.add(image.chain)
    known: dict[str, bool] = {}

    def descends(image_id: str) -> bool:
        try:
            return not chains.isdisjoint(core.parts.images.resolve(image_id).layers)
        except NotFound:
            return False

    def test(container: Container) -> bool:
        image_id = container.definition.image_id
        if image_id not in known:
            known[image_id] = image_id in ids or descends(image_id)
        return known[image_id]

    return test


def _before(core: Core, values: Sequence[str]) -> Test:
    limit = min(core.index.find(value).definition.created_ns for value in values)
    return lambda container: container.definition.created_ns < limit


def _since(core: Core, values: Sequence[str]) -> Test:
    limit = max(core.index.find(value).definition.created_ns for value in values)
    return lambda container: container.definition.created_ns > limit


def _exited(core: Core, values: Sequence[str]) -> Test:
    codes = set()
    for value in values:
        try:
            codes.add(int(value))
        except ValueError:
            raise InvalidArgument(f"invalid filter 'exited={value}': not a number", object=value) from None
    return lambda container: (
        bool(container.state.started_ns) and not container.state.running and container.state.exit_code in codes
    )


def _ports(values: Sequence[str]) -> set[tuple[int, str]]:
    return {port for value in values for port in expand_ports(value)}


def _expose(core: Core, values: Sequence[str]) -> Test:
    wanted = _ports(values)
    return lambda container: any(
        port in wanted for text in container.definition.config.exposed_ports or () for port in expand_ports(text)
    )


def _publish(core: Core, values: Sequence[str]) -> Test:
    # The host's ports: docker's `expose` is for the container's.
    wanted = _ports(values)
    return lambda container: any(
        (port.host_port + offset, port.proto) in wanted for port in container.ports for offset in range(port.count)
    )


def _health(core: Core, values: Sequence[str]) -> Test:
    _check("health", "health", values, _HEALTH)
    return lambda container: fits(container, values)


def _id(core: Core, values: Sequence[str]) -> Test:
    return lambda container: container.id.startswith(tuple(values))


def _isolation(core: Core, values: Sequence[str]) -> Test:
    return lambda container: "default" in values


def _is_task(core: Core, values: Sequence[str]) -> Test:
    # Swarm's tasks: there are none.
    return lambda container: values[0].lower() in ("false", "0", "f")


def _label(core: Core, values: Sequence[str]) -> Test:
    wanted = [value.partition("=") for value in values]

    def test(container: Container) -> bool:
        labels = container.definition.config.labels or {}
        return all(name in labels and (not equals or labels[name] == value) for name, equals, value in wanted)

    return test


def _name(core: Core, values: Sequence[str]) -> Test:
    import re

    try:
        # docker matches with and without the leading slash.
        patterns = [re.compile(value) for value in values]
    except re.error as error:
        raise InvalidArgument(f"invalid filter 'name={values}': {error}") from None
    return lambda container: any(
        pattern.search(f"/{container.name}") or pattern.search(container.name) for pattern in patterns
    )


def _network(core: Core, values: Sequence[str]) -> Test:
    def test(container: Container) -> bool:
        names = attachments.wanted(container.definition)
        ids = [endpoint.network_id for endpoint in container.endpoints]
        return any(value in names or any(id.startswith(value) for id in ids) for value in values if value)

    return test


def _status(core: Core, values: Sequence[str]) -> Test:
    _check("status", "state", values, _STATUSES)
    return lambda container: container.state.shown_status in values


def _check(filter: str, name: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            raise InvalidArgument(
                f"invalid filter '{filter}={value}': invalid value for {name} ({value}): must be one of "
                + ", ".join(allowed),
                object=value,
            )


def _volume(core: Core, values: Sequence[str]) -> Test:
    return lambda container: any(
        value in (mount.name, mount.destination, mount.source)
        for mount in container.definition.mounts
        for value in values
        if value
    )


_TESTS: Mapping[str, Callable[[Core, Sequence[str]], Test]] = {
    "ancestor": _ancestor,
    "before": _before,
    "since": _since,
    "exited": _exited,
    "expose": _expose,
    "publish": _publish,
    "health": _health,
    "id": _id,
    "isolation": _isolation,
    "is-task": _is_task,
    "label": _label,
    "name": _name,
    "network": _network,
    "status": _status,
    "volume": _volume,
}
