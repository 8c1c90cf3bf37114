"""HostConfig to mounts, users and the runtime's configuration: what reaches the kernel is decided here."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from wherry.engine.config import DaemonConfig
from wherry.engine.hostfiles import write_network_files
from wherry.engine.mount_specs import parse_mounts
from wherry.engine.oci_spec import Inputs, write_spec
from wherry.engine.ports import port_requests
from wherry.engine.records import Definition, MountPoint, State, dump, load_definition, load_state
from wherry.engine.security import DEFAULT_CAPABILITIES, capabilities
from wherry.engine.users import Accounts, Identity, identify, read_accounts
from wherry.engine.validation import check_config, check_host
from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.network.endpoint import Endpoint, PortRequest
from wherry.spec.decode import decode
from wherry.spec.docker import ContainerConfig, HostConfig, LogConfig, NetworkingConfig

ACCOUNTS = Accounts(
    "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\nbroken\n", "root:x:0:\nstaff:x:50:alice,bob\n"
)


def spec(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    """The configuration a container with these wishes is run with."""
    container, on_host = decode(ContainerConfig, config or {}), decode(HostConfig, host or {})
    mounts = parse_mounts(container, on_host, (), lambda name: ())
    definition = Definition(
        id="4f" * 32,
        name="boat",
        created_ns=1,
        image_id="",
        path="/bin/true",
        config=container,
        host=on_host,
        mounts=mounts,
    )
    given: dict[str, Any] = {
        "identity": Identity(0, 0, (0,), "/root"),
        "hostname": "boat",
        "cgroup_path": "/wherry/4f",
        "namespaces": {"network": "/run/netns/x", "pid": "", "ipc": ""},
        "files": {"/etc/hosts": "/data/hosts"},
        **inputs,
    }
    document: dict[str, Any] = json.loads(write_spec(definition, Inputs(**given)))
    return document


def mounted(document: dict[str, Any], destination: str) -> dict[str, Any]:
    (found,) = [mount for mount in document["mounts"] if mount["destination"] == destination]
    return dict(found)


def test_a_plain_container_is_confined() -> None:
    document = spec()
    process, linux = document["process"], document["linux"]
    assert tuple(process["capabilities"]["bounding"]) == DEFAULT_CAPABILITIES
    assert process["capabilities"]["ambient"] == process["capabilities"]["inheritable"] == []
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"/proc/kcore", "/sys/firmware"} <= set(linux["maskedPaths"])
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert {namespace["type"] for namespace in linux["namespaces"]} >= {"mount", "network", "pid", "ipc", "uts"}
    assert "ro" in mounted(document, "/sys")["options"]


def test_privileged_lifts_what_confines_and_keeps_the_namespaces() -> None:
    linux = spec(host={"Privileged": True})["linux"]
    assert "seccomp" not in linux
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert {"type": "pid"} in linux["namespaces"]


def test_another_user_starts_without_capabilities() -> None:
    identity = identify("alice", ("staff",), ACCOUNTS)
    process = spec(identity=identity)["process"]
    assert process["user"] == {"uid": 1000, "gid": 100, "additionalGids": [100, 50]}
    assert process["capabilities"]["effective"] == process["capabilities"]["permitted"] == []
    assert "HOME=/home/alice" in process["env"]


def test_environment_takes_the_last_word() -> None:
    env = spec({"Env": ["A=1", "PATH=/x", "A=2", "HOSTNAME"], "Tty": True})["process"]["env"]
    assert {"A=2", "PATH=/x", "TERM=xterm"} <= set(env)
    assert not any(item.startswith("HOSTNAME") for item in env)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (0,), "/root")),
        ("1000", Identity(1000, 100, (100, 50), "/home/alice")),
        ("alice:staff", Identity(1000, 50, (50,), "/home/alice")),
        ("4242", Identity(4242, 0, (0,), "/")),
        ("4242:7", Identity(4242, 7, (7,), "/")),
    ],
)
def test_users(user: str, expected: Identity) -> None:
    assert identify(user, (), ACCOUNTS) == expected


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("bob", "unable to find user bob: no matching entries in passwd file"),
        ("alice:crew", "unable to find group crew: no matching entries in group file"),
        ("99999999999", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_users_that_are_none(user: str, message: str) -> None:
    with pytest.raises((Internal, InvalidArgument), match=message):
        identify(user, (), ACCOUNTS)


def test_passwd_is_read_inside_the_root_and_only_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "etc/group")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        assert read_accounts(root) == Accounts("", "")
    finally:
        os.close(root)


def test_mounts_of_every_kind() -> None:
    host = {
        "Binds": ["/src:/bind:ro,rslave", "named:/named:nocopy", "/anonymous"],
        "Mounts": [
            {"Type": "bind", "Source": "/", "Target": "/top", "ReadOnly": True, "BindOptions": {"NonRecursive": True}},
            {"Type": "tmpfs", "Target": "/tmp/deep", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 0o700}},
        ],
        "Tmpfs": {"/run": "exec"},
    }
    document = spec({"Volumes": {"/bind": {}, "/image": {}}}, host)
    assert mounted(document, "/bind") == {
        "destination": "/bind",
        "type": "bind",
        "source": "/src",
        "options": ["rbind", "rslave", "rro"],
    }
    assert mounted(document, "/top")["options"] == ["bind", "rprivate", "ro"]
    assert mounted(document, "/tmp/deep")["options"][-2:] == ["size=4096", "mode=700"]
    assert mounted(document, "/run")["options"] == ["noexec", "nosuid", "nodev", "exec"]
    assert document["linux"]["rootfsPropagation"] == "rslave"
    points = parse_mounts(decode(ContainerConfig, {}), decode(HostConfig, host), (), lambda name: ())
    assert [p.destination for p in points if p.anonymous] == ["/anonymous"]
    assert [p.copy_up for p in points if p.name == "named"] == [False]


def test_parents_are_mounted_before_what_is_in_them() -> None:
    document = spec(host={"Binds": ["/a:/x/y/z", "/b:/x"]})
    order = [mount["destination"] for mount in document["mounts"]]
    assert order.index("/x") < order.index("/x/y/z")


def test_volumes_from_takes_mounts_but_not_their_lives() -> None:
    donor = (
        MountPoint(type="volume", name="v", source="/v", destination="/data", anonymous=True, copy_up=True),
        MountPoint(type="tmpfs", destination="/t"),
    )
    host = decode(HostConfig, {"VolumesFrom": ["other:ro"]})
    (point,) = parse_mounts(ContainerConfig(), host, (), lambda name: donor)
    assert (point.name, point.rw, point.anonymous, point.copy_up) == ("v", False, False, False)


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/a:/"]},
        {"Binds": ["/a:/../.."]},
        {"Binds": ["/a:b"]},
        {"Binds": ["/a:/b:ro,rw"]},
        {"Binds": ["../x:/b"]},
        {"Tmpfs": {"/x": "lowerdir=/etc"}},
        {"Mounts": [{"Type": "volume", "Target": "/x", "Source": "v", "VolumeOptions": {"Subpath": "../.."}}]},
    ],
)
def test_mounts_that_are_refused(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        parse_mounts(ContainerConfig(), decode(HostConfig, host), (), lambda name: ())


@pytest.mark.parametrize(
    "host",
    [
        {"Links": ["a:b"]},
        {"UsernsMode": "remap"},
        {"StorageOpt": {"size": "1G"}},
        {"NetworkMode": "container:"},
        {"PidMode": "elsewhere"},
        {"DeviceCgroupRules": ["c 1:99999999999 r"]},
        {"Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": "x"}]},
        {"MaskedPaths": ["proc/kcore"]},
        {"ExtraHosts": ["name:not-an-address"]},
        {"Dns": ["nameserver"]},
        {"DnsSearch": ["a\nnameserver 6.6.6.6"]},
        {"OomScoreAdj": 2000},
    ],
)
def test_nothing_is_silently_dropped(host: dict[str, Any]) -> None:
    found = decode(HostConfig, {"LogConfig": {"Type": "json-file"}, **host})
    with pytest.raises(WherryError):
        check_host(ContainerConfig(), found, NetworkingConfig())


def test_a_health_check_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(WherryError, match="unknown kind of health check"):
        check_config(decode(ContainerConfig, {"Healthcheck": {"Test": ["HTTP", "/"]}}))
    with pytest.raises(WherryError, match="unknown action"):
        check_config(decode(ContainerConfig, {"Healthcheck": {"Test": ["CMD", "true"], "OnFailure": "burn"}}))
    check_config(decode(ContainerConfig, {"Healthcheck": {"Test": ["NONE"]}}))
    check_host(ContainerConfig(), HostConfig(log_config=LogConfig(type="json-file")), NetworkingConfig())


def test_capabilities() -> None:
    assert capabilities((), ("ALL",), False) == ()
    assert capabilities(("net_admin",), ("all",), False) == ("CAP_NET_ADMIN",)
    assert "CAP_CHOWN" not in capabilities(("ALL",), ("CHOWN",), False)
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        capabilities(("FLY",), (), False)


def test_ports() -> None:
    host = decode(
        HostConfig, {"PortBindings": {"80/tcp": [{"HostPort": "8000-8010", "HostIp": "::1"}], "53/udp": [{}]}}
    )
    assert port_requests(None, host) == (PortRequest(80, "tcp", "::1", 8000, 8010), PortRequest(53, "udp"))
    with pytest.raises(InvalidArgument):
        port_requests(None, decode(HostConfig, {"PortBindings": {"80/tcp": [{"HostPort": "9-8"}]}}))


def test_files_over_the_image_s(tmp_path: Path) -> None:
    definition = Definition(
        id="1" * 64,
        name="n",
        created_ns=5,
        image_id="sha256:x",
        config=ContainerConfig(hostname="boat", domainname="sea.example"),
        host=HostConfig(extra_hosts=("db:10.0.0.1", "up:host-gateway"), dns=("10.1.1.1",), dns_search=("lan",)),
        mounts=(),
    )
    endpoint = Endpoint("1" * 64, tmp_path / "netns", "bridge", "i", "bridge", "e", ipv4="172.17.0.2")
    config = DaemonConfig(dns=("9.9.9.9",), dns_options=("ndots:2",))
    write_network_files(tmp_path, definition, config, (endpoint,), "172.17.0.1")
    text = (tmp_path / "hosts").read_text()
    assert "10.0.0.1\tdb\n172.17.0.1\tup\n172.17.0.2\tboat.sea.example boat\n" in text
    resolv = (tmp_path / "resolv.conf").read_text()
    assert "\nnameserver 10.1.1.1\nsearch lan\noptions ndots:2\n" in resolv


def test_records_survive_the_store() -> None:
    host = decode(HostConfig, {"Binds": ["/a:/b"], "CapDrop": [], "Tmpfs": {"/t": ""}, "RestartPolicy": {"Name": "no"}})
    definition = Definition(
        id="1" * 64,
        name="n",
        created_ns=5,
        image_id="sha256:x",
        config=decode(ContainerConfig, {"Cmd": [], "StopTimeout": 0, "Labels": {"a": ""}}),
        host=host,
        mounts=parse_mounts(ContainerConfig(), host, (), lambda name: ()),
    )
    assert load_definition(dump(definition)) == definition
    state = State(status="exited", exit_code=3, finished_ns=9, oom_killed=True)
    assert load_state(dump(state)) == state
