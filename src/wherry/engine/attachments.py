"""Which networks a container is to be connected to, and is: requests, changes while it lives, and how it is shown.

What is wanted is part of the definition (`networking.endpoints_config`, by the network's name; None: only the one of
its mode); what is there while it runs are the endpoints.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.hostfiles import update_network_files
from wherry.engine.ports import port_requests
from wherry.engine.records import Definition, definition_key, dump, state_key
from wherry.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest
from wherry.network.requests import check_options, check_request
from wherry.spec.decode import encode
from wherry.spec.docker import EndpointIPAMConfig, EndpointSettings, HostConfig, NetworkingConfig
from wherry.state import Put

BUILT_IN = ("bridge", "host", "none")
_EMPTY = EndpointSettings()


def normalise(core: Core, host: HostConfig, networking: NetworkingConfig) -> NetworkingConfig:
    """The networks of a new container by name, that of its mode among them; InvalidArgument in docker's words."""
    mode = host.network_mode
    if mode.startswith("container:"):
        return NetworkingConfig()
    given = {_name(core, name): settings or _EMPTY for name, settings in (networking.endpoints_config or {}).items()}
    primary = _name(core, mode)
    given.setdefault(primary, _EMPTY)
    if len(given) > 1 and not set(given).isdisjoint(("host", "none")):
        mixed = next(name for name in ("host", "none") if name in given)
        raise InvalidArgument(_exclusive(mixed), object=mixed)
    for name, settings in given.items():
        check_settings(core, name, settings)
    if set(given) == {primary} and given[primary] == _EMPTY and primary == mode:
        return NetworkingConfig()
    return NetworkingConfig(endpoints_config=given)


def _name(core: Core, reference: str) -> str:
    """A network's name, where there is such a network: it may be made later."""
    if reference in ("", "default"):
        return "bridge"
    if reference in BUILT_IN:
        return reference
    try:
        return str(core.parts.networks.find(reference).name)
    except NotFound:
        return reference


def _exclusive(mode: str) -> str:
    kind = "host" if mode == "host" else "private (none)"
    return f"container cannot be connected to multiple networks with one of the networks in {kind} mode"


def check_settings(core: Core, name: str, settings: EndpointSettings) -> None:
    """InvalidArgument for what cannot be asked of a network, be it there yet or not."""
    if name in BUILT_IN and settings.links:
        raise InvalidArgument(
            "links of a network are only supported on user-defined networks", object=name, hint="use HostConfig.Links"
        )
    for text in settings.links or ():
        parse_link(text)
    if settings.aliases and name in BUILT_IN:
        raise InvalidArgument(
            f"invalid config for network {name}: invalid endpoint settings:\n"
            "network-scoped aliases are only supported for user-defined networks",
            object=name,
        )
    addresses = settings.ipam_config
    if addresses is not None and addresses.link_local_ips:
        raise InvalidArgument("link-local addresses of a container's choice are not supported", object="LinkLocalIPs")
    request = _endpoint_request(name, "", settings, ())
    try:
        network = core.parts.networks.find(name)
    except NotFound:
        check_options(settings.driver_opts or {})
        return
    check_request(request, network)


def wanted(definition: Definition) -> dict[str, EndpointSettings]:
    """The networks it is to be connected to and how, that of its mode first."""
    mode = definition.host.network_mode
    if mode.startswith("container:"):
        return {}
    given = definition.networking.endpoints_config
    if given is None:
        return {mode: _EMPTY}
    names = sorted(given, key=lambda name: (name != mode, name))
    return {name: given[name] or _EMPTY for name in names}


def requests(definition: Definition) -> tuple[tuple[EndpointRequest, ...], tuple[PortRequest, ...]]:
    """What to ask of the network room for a start."""
    found = []
    for name, settings in wanted(definition).items():
        if definition.config.mac_address and not settings.mac_address and name == definition.host.network_mode:
            settings = replace(settings, mac_address=definition.config.mac_address)
        found.append(_endpoint_request(name, definition.name, settings, dns_names(definition, name, settings)))
    plain = definition.host.network_mode in ("host", "none")
    return tuple(found), () if plain else port_requests(definition.config.exposed_ports, definition.host)


def _endpoint_request(network: str, name: str, settings: EndpointSettings, names: Sequence[str]) -> EndpointRequest:
    addresses = settings.ipam_config or EndpointIPAMConfig()
    return EndpointRequest(
        network=network,
        name=name,
        mac=settings.mac_address or None,
        ipv4=addresses.ipv4_address or None,
        ipv6=addresses.ipv6_address or None,
        priority=settings.gw_priority,
        options=dict(settings.driver_opts or {}),
        names=tuple(names),
    )


def dns_names(
    definition: Definition, network: str, settings: EndpointSettings, *, everywhere: bool = False
) -> tuple[str, ...]:
    """What others on a user-defined network may call it; with `everywhere` those on the default bridge too."""
    if network in BUILT_IN and not everywhere:
        return ()
    names = (definition.name, *(settings.aliases or ()), definition.id[:12], definition.config.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def links_of(definition: Definition, network: str, settings: EndpointSettings) -> dict[str, str]:
    """What it calls others on a user-defined network → their names there."""
    texts = list(settings.links or ())
    if network == definition.host.network_mode:
        texts += definition.host.links or ()
    return {alias: name for name, alias in map(parse_link, texts)}


def parse_link(text: str) -> tuple[str, str]:
    """(container, alias) of "container:alias"; a container alone is called by its name."""
    name, _, alias = text.partition(":")
    name, alias = name.removeprefix("/"), alias.rpartition("/")[2]
    if not name or ":" in alias or (":" in text and not alias):
        raise InvalidArgument(f"bad format for links: {text}", object=text, hint="container:alias")
    return name, alias or name


async def connect(core: Core, network: str, reference: str, settings: EndpointSettings | None) -> None:
    """Connect a container to one network more, running or not."""
    settings = settings or _EMPTY
    name = str(core.parts.networks.find(network).name)
    container = core.index.find(reference)
    async with container.lock:
        _check_there(core, container)
        _check_can_connect(container, name)
        check_settings(core, name, settings)
        known = wanted(container.definition)
        if container.run is not None and name in known and any(e.network == name for e in container.endpoints):
            raise PermissionDenied(f"endpoint with name {container.name} already exists in network {name}", object=name)
        definition = _with_networks(container.definition, {**known, name: settings})
        before = container.endpoints
        if container.run is not None:
            names = dns_names(definition, name, settings)
            request = _endpoint_request(name, container.name, settings, names)
            ports = requests(definition)[1]
            endpoints = await asyncio.to_thread(core.parts.networks.connect_all, container.id, (request,), ports)
            container.endpoints = tuple(endpoints)
        await _record(core, container, definition)
        await core.naming.publish(container)
        for endpoint in container.endpoints:
            if endpoint.endpoint_id not in {e.endpoint_id for e in before}:
                announce(core, container, endpoint, "connect")


async def disconnect(core: Core, network: str, reference: str, *, force: bool = False) -> None:
    """Take a container out of one network, running or not. `force`: not even there is no error."""
    found = core.parts.networks.find(network)
    name = str(found.name)
    try:
        container = core.index.find(reference)
    except NotFound:
        if force:
            return
        raise
    async with container.lock:
        _check_there(core, container)
        if container.definition.host.network_mode == "host" and name == "host":
            raise PermissionDenied("container cannot be disconnected from host network or connected to host network")
        known = wanted(container.definition)
        if name not in known:
            if force:
                return
            raise PermissionDenied(f"container {container.id} is not connected to network {name}", object=name)
        leaving = [endpoint for endpoint in container.endpoints if endpoint.network == name]
        if container.run is not None and leaving:
            if leaving[0].netns is None:
                raise PermissionDenied(f"container cannot be disconnected from the network {name} while it runs")
            await asyncio.to_thread(core.parts.networks.disconnect, container.id, name)
            container.endpoints = tuple(core.parts.networks.endpoints(container.id))
        del known[name]
        await _record(core, container, _with_networks(container.definition, known))
        await core.naming.publish(container)
        for endpoint in leaving:
            announce(core, container, endpoint, "disconnect")


def _check_there(core: Core, container: Container) -> None:
    if container.id not in core.index or container.state.status in ("removing", "dead"):
        raise Conflict(f"container {container.id} is marked for removal and cannot be connected", object=container.id)


def _check_can_connect(container: Container, network: str) -> None:
    mode = container.definition.host.network_mode
    if mode.startswith("container:"):
        raise PermissionDenied("container sharing network namespace with another container or host cannot be connected")
    if network == "host":
        raise PermissionDenied(
            "cannot connect container to host network - container must be created in host network mode"
        )
    if mode == "host":
        raise PermissionDenied("cannot connect container in host network mode to another network")
    if "none" in (mode, network) and network != mode:
        raise PermissionDenied(_exclusive("none"))


def _with_networks(definition: Definition, networks: Mapping[str, EndpointSettings]) -> Definition:
    return replace(definition, networking=NetworkingConfig(endpoints_config=dict(networks)))


async def _record(core: Core, container: Container, definition: Definition) -> None:
    """What is wanted and what is there, at once; and the container's own file of names."""
    container.set_definition(networking=definition.networking)
    changes = [Put(definition_key(container.id), dump(container.definition))]
    if container.run is not None:
        container.set_state(endpoints=stored(container.endpoints))
        changes.append(Put(state_key(container.id), dump(container.state)))
    core.store.write(*changes)
    if container.run is not None:
        gateway = host_gateway(core, container.definition)
        directory = core.directory(container.id)
        await asyncio.to_thread(
            update_network_files, directory, container.definition, core.config, container.endpoints, gateway
        )


def stored(endpoints: Sequence[Endpoint]) -> tuple[dict[str, Any], ...]:
    """Endpoints for the container's state."""
    return tuple(endpoint.to_json() for endpoint in endpoints)


def host_gateway(core: Core, definition: Definition) -> str:
    """What host-gateway means in its --add-host, "" when nothing asks for it."""
    extra = definition.host.extra_hosts or ()
    if not any(entry.endswith("host-gateway") for entry in extra):
        return ""
    return core.config.host_gateway_ip or core.parts.networks.gateway


def announce(core: Core, container: Container, endpoint: Endpoint, action: str) -> None:
    """The event of a network."""
    attributes = {"container": container.id, "name": endpoint.network, "type": endpoint.driver}
    core.events.emit("network", action, endpoint.network_id, attributes)


def shown(container: Container) -> dict[str, Any]:
    """NetworkSettings.Networks of the inspect document: every network wanted, connected or not."""
    definition = container.definition
    endpoints = {endpoint.network: endpoint for endpoint in container.endpoints}
    known = wanted(definition)
    return {name: _shown(container, name, known[name], endpoints.get(name)) for name in sorted(known)}


def _shown(container: Container, name: str, settings: EndpointSettings, endpoint: Endpoint | None) -> dict[str, Any]:
    addresses = settings.ipam_config
    given = None if addresses is None else {key: value for key, value in encode(addresses).items() if value}
    names = list(dns_names(container.definition, name, settings)) if container.state.started_ns else []
    return {
        "IPAMConfig": given,
        "Links": list(settings.links) if settings.links else None,
        "Aliases": list(settings.aliases) if settings.aliases else None,
        "MacAddress": endpoint.mac if endpoint else settings.mac_address,
        "DriverOpts": dict(settings.driver_opts) if settings.driver_opts is not None else None,
        "GwPriority": settings.gw_priority,
        "NetworkID": endpoint.network_id if endpoint else "",
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ipv4 if endpoint else "",
        "IPPrefixLen": endpoint.prefix if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.ipv6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix6 if endpoint else 0,
        "DNSNames": names or None,
    }
