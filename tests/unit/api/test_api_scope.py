"""What scoped sockets may do: names of operations, documents, and what creations may ask for."""

from typing import Any

import pytest

from wherry.api.harmless import check_creation, check_exec, check_object, check_update
from wherry.api.operations import ALWAYS, GROUPS, LIFECYCLE, READ, operation
from wherry.api.router import Route, Router
from wherry.api.scope import Scope, parse_scope
from wherry.api.server import _MODULES
from wherry.errors import InvalidArgument, PermissionDenied
from wherry.spec.decode import decode
from wherry.spec.docker import ExecConfig, HostConfig, NetworkingConfig

ROUTES = list(Router(route for module in _MODULES for route in module.ROUTES).routes())
KNOWN = {word: operation(route) for route in ROUTES for word in (operation(route), f"{route.method} {route.pattern}")}


def of(line: str) -> str:
    method, _, pattern = line.partition(" ")
    return operation(next(route for route in ROUTES if (route.method, route.pattern) == (method, pattern)))


def test_names() -> None:
    assert [
        of("GET /containers/json"),
        of("GET /containers/{id}/json"),
        of("DELETE /containers/{id}"),
        of("POST /containers/create"),
        of("POST /containers/{id}/attach"),
        of("GET /containers/{id}/attach/ws"),
        of("PUT /containers/{id}/archive"),
        of("HEAD /containers/{id}/archive"),
        of("POST /exec/{id}/start"),
        of("POST /containers/{id}/exec"),
        of("GET /volumes"),
        of("GET /networks/{id}"),
        of("POST /images/{name:.*}/push"),
        of("POST /wherry/sockets/create"),
        of("DELETE /wherry/sockets/{name}"),
        of("POST /wherry/images/bootstrap"),
        of("HEAD /_ping"),
    ] == [
        *("containers.list", "containers.inspect", "containers.remove", "containers.create"),
        *("containers.attach", "containers.attach", "containers.copy-to", "containers.copy-from"),
        *("containers.exec", "containers.exec", "volumes.list", "networks.inspect", "images.push"),
        *("wherry.sockets.create", "wherry.sockets.remove", "wherry.images.bootstrap", "ping"),
    ]
    assert all(operation(route) for route in ROUTES)


def test_reading_only_reads() -> None:
    """Whatever routes bear the name of something in the group, now or later."""
    for route in ROUTES:
        if operation(route) in READ | ALWAYS:
            assert route.method in ("GET", "HEAD"), route
            assert not {"attach", "ws", "archive", "export", "exec"} & set(route.pattern.split("/")), route
        if operation(route) in LIFECYCLE:
            assert route.pattern.startswith("/containers/{id}/"), route
    assert set(KNOWN) >= set().union(*GROUPS.values()) - {"images.search", "plugins.inspect"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"Name": "a/b", "Allow": ["read"]}, "invalid name"),
        ({"Name": "", "Allow": ["read"]}, "invalid name"),
        ({"Name": "a"}, "may do nothing"),
        ({"Name": "a", "Allow": ["containers.fly"]}, "no operation 'containers.fly'"),
        ({"Name": "a", "Allow": ["POST /containers/x/start"]}, "no operation"),
        ({"Name": "a", "Allow": ["wherry.sockets.create"]}, "could make a wider one"),
        ({"Name": "a", "Allow": ["POST /wherry/sockets/create"]}, "could make a wider one"),
        ({"Name": "a", "Allow": ["read"], "Path": "relative"}, "must be absolute"),
        ({"Name": "a", "Allow": ["read"], "Mode": "rw"}, "invalid mode"),
        ({"Name": "a", "Allow": ["containers.prune"], "Labels": ["x"]}, "is not about single containers"),
        ({"Name": "a", "Allow": ["containers.commit"], "Labels": ["x"]}, "is not about single containers"),
        ({"Name": "a", "Allow": ["networks.connect"], "Names": ["x"]}, "is not about single containers"),
        ({"Name": "a", "Allow": ["POST /containers/prune"], "Names": ["x"]}, "is not about single containers"),
        ([], "must be an object"),
        ({"Name": "a", "Allow": ["build"]}, "can take hold of the machine"),
        ({"Name": "a", "Allow": ["containers.alter"]}, "can take hold of the machine"),
        ({"Name": "a", "Allow": ["POST /containers/{id}/alter"]}, "can take hold of the machine"),
        ({"Name": "a", "Allow": ["containers.alter", "privileged"], "Labels": ["x"]}, "not about single containers"),
        ({"Name": "a", "Allow": ["POST /session"]}, "can take hold of the machine"),
        ({"Name": "a", "Allow": ["services.create"]}, "can take hold of the machine"),
        ({"Name": "a", "Allow": ["wherry.images.bootstrap"]}, "can take hold of the machine"),
    ],
)
def test_scopes_that_are_refused(document: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_scope(document, KNOWN)


def test_narrowed_reading_is_of_what_can_be_narrowed() -> None:
    wide = parse_scope({"Name": "a", "Allow": ["read"]}, KNOWN).operations()
    narrow = parse_scope({"Name": "a", "Allow": ["read", "images.list"], "Labels": ["x"]}, KNOWN).operations()
    assert {"df", "info", "volumes.list", "networks.inspect"} <= wide
    assert not {"df", "info", "volumes.list", "networks.inspect"} & narrow
    assert {"containers.list", "events", "images.list", "ping", "version"} <= narrow


def test_routes_are_as_good_as_names() -> None:
    scope = parse_scope({"Name": "a", "Allow": ["POST /containers/{id}/start"], "Labels": ["x"]}, KNOWN)
    assert scope.narrowed
    parse_scope({"Name": "a", "Allow": ["build", "privileged"]}, KNOWN)


def test_which_containers_are_its_own() -> None:
    scope = Scope(name="a", labels=("team=a", "web"), names=("web-*", "db"))
    assert scope.fits("web-1", {"team": "a", "web": ""})
    assert scope.fits("db", {"team": "a", "web": "x", "more": ""})
    for name, labels in (("web", {"team": "a", "web": ""}), ("db", {"team": "b", "web": ""}), ("db", {"team": "a"})):
        assert not scope.fits(name, labels)
    event = {"Type": "container", "Actor": {"Attributes": {"name": "db", "team": "a", "web": ""}}}
    assert scope.fits_event(event)
    assert not scope.fits_event(event | {"Type": "volume"})


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"privileged": True},
        {"Binds": ["/:/host"]},
        {"Binds": ["./x:/y"]},
        {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/h"}]},
        {"Mounts": [{"Type": "volume", "Target": "/h", "VolumeOptions": {"DriverConfig": {"Name": "local"}}}]},
        {"Mounts": [{"Type": "image", "Source": "x", "Target": "/h"}]},
        {"CapAdd": ["SYS_ADMIN"]},
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"DeviceCgroupRules": ["a *:* rwm"]},
        {"DeviceRequests": [{"Count": -1}]},
        {"PidMode": "host"},
        {"PidMode": "container:x"},
        {"IpcMode": "host"},
        {"IpcMode": "container:x"},
        {"UTSMode": "host"},
        {"UsernsMode": "host"},
        {"CgroupnsMode": "host"},
        {"NetworkMode": "host"},
        {"NetworkMode": "container:x"},
        {"VolumesFrom": ["x"]},
        {"VolumeDriver": "x"},
        {"Links": ["x"]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"SecurityOpt": ["no-new-privileges:false"]},
        {"MaskedPaths": []},
        {"ReadonlyPaths": []},
        {"Sysctls": {"net.ipv4.ip_forward": "1"}},
        {"CgroupParent": "/"},
        {"Runtime": "x"},
        {"OomKillDisable": True},
        {"OomScoreAdj": -900},
        {"LogConfig": {"Type": "syslog"}},
        {"CpuRealtimeRuntime": 5},
        {"Annotations": {"a": "b"}},
    ],
)
def test_what_reaches_beyond_the_container_is_refused(host: dict[str, Any]) -> None:
    with pytest.raises(PermissionDenied, match="may not make use of HostConfig"):
        check_creation(decode(HostConfig, host), NetworkingConfig(), shared=True)


def test_what_others_use_too() -> None:
    for host in ({"Binds": ["data:/x"]}, {"Mounts": [{"Type": "volume", "Source": "data", "Target": "/x"}]}):
        check_creation(decode(HostConfig, host), NetworkingConfig(), shared=True)
        with pytest.raises(PermissionDenied):
            check_creation(decode(HostConfig, host), NetworkingConfig(), shared=False)
    for name, shared in (("host", True), ("mine", False)):
        networking = decode(NetworkingConfig, {"EndpointsConfig": {name: {}}})
        with pytest.raises(PermissionDenied, match="the network"):
            check_creation(HostConfig(), networking, shared=shared)


def test_what_clients_send_for_a_plain_container() -> None:
    """docker run's document, and limits."""
    plain: dict[str, Any] = {
        "Binds": None,
        "CapAdd": None,
        "Devices": [],
        "DeviceRequests": None,
        "Links": None,
        "VolumesFrom": None,
        "NetworkMode": "default",
        "PidMode": "",
        "Privileged": False,
        "OomKillDisable": False,
        "OomScoreAdj": 0,
        "MaskedPaths": None,
        "ReadonlyPaths": None,
        "SecurityOpt": ["no-new-privileges"],
        "Memory": 1 << 26,
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        "RestartPolicy": {"Name": "always"},
        "Init": True,
        "Tmpfs": {"/t": ""},
        "Mounts": [{"Type": "tmpfs", "Target": "/u"}],
        "MemorySwappiness": -1,
    }
    check_creation(decode(HostConfig, plain), NetworkingConfig(), shared=False)


def test_updates_and_execs() -> None:
    check_update({"Memory": 1 << 26, "RestartPolicy": {"Name": "no"}, "memoryswap": -1})
    for document in ({"Privileged": True}, {"HostConfig": {}}, {"Binds": []}, {"CgroupParent": ""}):
        with pytest.raises(PermissionDenied):
            check_update(document)
    for document in (
        {"Name": "v", "Driver": "local", "DriverOpts": {}, "Labels": {"a": "b"}},
        {"Name": "n", "IPAM": {"Driver": "default", "Config": []}},
    ):
        check_object(document)
    for document in (
        {"Name": "v", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}},
        {"Name": "v", "Driver": "other"},
        {"name": "n", "driver": "macvlan"},
        {"Name": "n", "Options": {"com.docker.network.bridge.name": "eth0"}},
        {"Name": "n", "ConfigFrom": {"Network": "x"}},
        {"Name": "n", "SomethingNew": 1},
        {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}]}},
    ):
        with pytest.raises(PermissionDenied):
            check_object(document)
    check_exec(ExecConfig(cmd=("id",)))
    with pytest.raises(PermissionDenied):
        check_exec(ExecConfig(cmd=("id",), privileged=True))


def test_a_route_without_a_name_is_nothing() -> None:
    assert operation(Route("GET", "/containers/json", ROUTES[0].handler)) == "containers.list"
