"""Every field of a creation, kept and shown by inspect as it was given; parameters that other tests leave out."""

import time
from typing import Any

import pytest

from engine_client import Api

pytestmark = pytest.mark.root

# What is given, and what inspect shows where that differs.
_CONFIG: list[tuple[dict[str, Any], Any]] = [
    ({"Hostname": "h"}, None),
    ({"Domainname": "d.example"}, None),
    ({"User": "1:2"}, None),
    ({"AttachStdin": True}, None),
    ({"AttachStdout": True}, None),
    ({"AttachStderr": True}, None),
    ({"ExposedPorts": {"80/tcp": {}}}, None),
    ({"Tty": True}, None),
    ({"OpenStdin": True}, None),
    ({"OpenStdin": True, "StdinOnce": True}, None),
    ({"Env": ["A=1"]}, None),
    ({"Cmd": ["true"]}, None),
    ({"Volumes": {"/v": {}}}, None),
    ({"WorkingDir": "/w"}, None),
    ({"Entrypoint": ["true"]}, None),
    ({"Labels": {"a": "b"}}, None),
    ({"StopSignal": "SIGINT"}, None),
    ({"StopTimeout": 7}, None),
    ({"Shell": ["/bin/sh", "-c"]}, None),
    ({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 2 * 10**9, "Retries": 4}}, None),
    ({"Healthcheck": {"Test": ["CMD", "true"], "StartPeriod": 10**9, "StartInterval": 10**9}}, None),
]
_HOST: list[tuple[dict[str, Any], Any]] = [
    ({"CpuShares": 512}, None),
    ({"Memory": 64 << 20, "MemorySwap": 128 << 20, "MemoryReservation": 32 << 20}, None),
    ({"CgroupParent": "/x"}, None),
    ({"CpuPeriod": 50000, "CpuQuota": 20000}, None),
    ({"CpusetCpus": "0"}, None),
    ({"CpusetMems": "0"}, None),
    ({"NanoCpus": 500_000_000}, None),
    ({"PidsLimit": 50}, None),
    ({"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]}, None),
    ({"DeviceCgroupRules": ["c 1:3 rwm"]}, None),
    ({"Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 128}]}, None),
    ({"Binds": ["/etc:/x:ro"]}, None),
    ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}}, None),
    ({"NetworkMode": "none"}, None),
    ({"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}}, None),
    ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, None),
    ({"AutoRemove": True}, None),
    ({"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 448}}]}, None),
    ({"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["noexec"]]}}]}, None),
    ({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/t", "ReadOnly": True}]}, None),
    (
        {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/t", "BindOptions": {"Propagation": "rprivate"}}]},
        None,
    ),
    ({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/t", "BindOptions": {"NonRecursive": True}}]}, None),
    ({"Mounts": [{"Type": "volume", "Target": "/t", "VolumeOptions": {"NoCopy": True}}]}, None),
    ({"Annotations": {"a": "b"}}, None),
    ({"CapAdd": ["CAP_NET_ADMIN"]}, None),
    ({"CapDrop": ["CAP_CHOWN"]}, None),
    ({"CgroupnsMode": "host"}, None),
    ({"Dns": ["9.9.9.9"], "DnsOptions": ["ndots:1"], "DnsSearch": ["example.org"]}, None),
    ({"ExtraHosts": ["x:1.2.3.4"]}, None),
    ({"GroupAdd": ["7"]}, None),
    ({"IpcMode": "shareable"}, None),
    ({"OomScoreAdj": 100}, None),
    ({"PidMode": "host"}, None),
    ({"Privileged": True}, None),
    ({"PublishAllPorts": True}, None),
    ({"ReadonlyRootfs": True}, None),
    ({"SecurityOpt": ["no-new-privileges"]}, None),
    ({"Tmpfs": {"/t": "size=1m"}}, None),
    ({"UTSMode": "host"}, None),
    ({"UsernsMode": "host"}, None),
    ({"ShmSize": 1 << 20}, None),
    ({"Sysctls": {"net.ipv4.ip_forward": "1"}}, None),
    ({"MaskedPaths": ["/x"]}, None),
    ({"ReadonlyPaths": ["/x"]}, None),
    ({"ContainerIDFile": "/x"}, None),
    ({"ConsoleSize": [20, 80]}, None),
]


def _shown(given: Any, found: Any) -> Any:
    """What is found, of what was given."""
    if isinstance(given, dict):
        return {key: _shown(value, found.get(key)) for key, value in given.items()}
    if isinstance(given, list) and given and isinstance(found, list) and isinstance(given[0], dict):
        return [_shown(one, other) for one, other in zip(given, found, strict=True)]
    return found


@pytest.mark.parametrize(("config", "shown"), _CONFIG)
def test_config(api: Api, image: str, name: str, config: dict[str, Any], shown: Any) -> None:
    document = {"Image": image, "Cmd": ["true"], **config}
    assert api.post(f"/v1.50/containers/create?name={name}", document).status == 201
    found = api.get(f"/v1.50/containers/{name}/json").json["Config"]
    assert _shown(config, found) == (shown or config)


@pytest.mark.parametrize(("host_config", "shown"), _HOST)
def test_host_config(api: Api, image: str, name: str, host_config: dict[str, Any], shown: Any) -> None:
    document = {"Image": image, "Cmd": ["true"], "HostConfig": host_config}
    answer = api.post(f"/v1.50/containers/create?name={name}", document)
    assert answer.status == 201, answer
    found = api.get(f"/v1.50/containers/{name}/json").json["HostConfig"]
    assert _shown(host_config, found) == (shown or host_config)


def test_parameters_of_lists(api: Api, image: str, name: str) -> None:
    for suffix in ("a", "b"):
        api.create(f"{name}-{suffix}", Image=image, Cmd=["true"], Labels={"k": name})
    mine = f'filters={{"label":["k={name}"]}}'
    assert [c["Names"] for c in api.get(f"/containers/json?all=1&limit=1&{mine}").json] == [[f"/{name}-b"]]
    sized = api.get(f"/containers/json?all=1&size=1&{mine}").json
    assert [set(c) & {"SizeRootFs"} for c in sized] == [{"SizeRootFs"}] * 2
    prune = f'/containers/prune?filters={{"label":["k={name}"],"until":["%s"]}}'
    assert not api.post(prune % "1h").json["ContainersDeleted"]
    assert len(api.post(prune % "0s").json["ContainersDeleted"]) == 2


def test_parameters_of_logs(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sh", "-c", "echo one; sleep 1.2; echo two"], Tty=True)
    api.wait(name)
    lines = api.get(f"/containers/{name}/logs?stdout=1&timestamps=1").body.decode().split()
    assert lines[1::2] == ["one", "two"]
    between = f"{api.get(f'/containers/{name}/json').json['State']['StartedAt']}"
    assert between < lines[2]
    seconds = int(time.time())
    assert api.get(f"/containers/{name}/logs?stdout=1&since={seconds + 60}").body == b""
    assert api.get(f"/containers/{name}/logs?stdout=1&until={seconds - 600}").body == b""
    assert api.get(f"/containers/{name}/logs?stdout=1&tail=1").body == b"two\r\n"


def test_signals_of_stop_and_restart(api: Api, image: str, name: str) -> None:
    script = "trap 'echo usr1; exit 3' USR1; while :; do sleep 0.05; done"
    api.run(name, Image=image, Cmd=["sh", "-c", script], Tty=True)
    assert api.post(f"/containers/{name}/restart?signal=KILL&t=5").status == 204
    assert api.post(f"/containers/{name}/stop?signal=KILL&t=5").status == 204
    assert api.wait(name) == 137


def test_sizes_of_terminals(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sleep", "60"])
    config = {"Cmd": ["sh"], "Tty": True, "AttachStdin": True, "AttachStdout": True, "ConsoleSize": [11, 22]}
    id = api.post(f"/containers/{name}/exec", config).json["Id"]
    with api.hijack(f"/exec/{id}/start", b'{"Tty":true,"ConsoleSize":[33,44]}') as streams:
        streams.send(b"stty size\n")
        streams.receive(b"33 44")
        assert api.post(f"/exec/{id}/resize?h=12&w=34").status == 200
        streams.send(b"stty size; exit\n")
        streams.receive(b"12 34")


def test_filters_of_events(api: Api, image: str, name: str) -> None:
    id = api.create(name, Image=image, Cmd=["true"], Labels={"k": name})
    time_now = f"since={int(time.time()) - 60}&until={int(time.time()) + 1}"
    for filter, value, found in (
        ("container", name, True),
        ("container", "nosuch", False),
        ("event", "create", True),
        ("event", "nosuch", False),
        ("image", image, True),
        ("label", f"k={name}", True),
        ("label", "k=nosuch", False),
        ("scope", "local", True),
        ("scope", "swarm", False),
        ("type", "container", True),
        ("network", "nosuch", False),
        ("volume", "nosuch", False),
        ("daemon", "nosuch", False),
        ("plugin", "nosuch", False),
        ("config", "nosuch", False),
        ("node", "nosuch", False),
        ("secret", "nosuch", False),
        ("service", "nosuch", False),
    ):
        target = f'/v1.50/events?{time_now}&filters={{"{filter}":["{value}"]}}'
        assert (id in [event["Actor"]["ID"] for event in api.get(target).lines]) is found, filter
