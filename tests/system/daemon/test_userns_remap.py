"""A daemon with userns-remap: what containers may do to the host, and that everything works as without it."""

import contextlib
import io
import os
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import Daemon, busybox_tar, wait_until
from engine_client import Api, unframe

pytestmark = pytest.mark.root
FIRST = 100_000


class Remapped(Daemon):
    """In a mount namespace where /etc/subuid and /etc/subgid are the test's own."""

    def command(self) -> list[str]:
        ids = self.root / "subids"
        ids.write_text(f"games:{FIRST}:65536\n")
        script = f'mount --bind {ids} /etc/subuid && mount --bind {ids} /etc/subgid && exec "$@"'
        return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh", *super().command()]


@pytest.fixture(scope="module")
def remapped() -> Iterator[Remapped]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Remapped("--userns-remap", "games")
    try:
        made.start()
        with contextlib.closing(Api(made.host)) as api:
            tar = busybox_tar().read_bytes()
            answer = api.request(
                "POST", "/images/create?fromSrc=-&repo=box&tag=1", tar, {"Content-Type": "application/x-tar"}
            )
            assert answer.status == 200
        yield made
        made.stop()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not made.leaks(), 5, "nothing is left")
        leaks = made.leaks()
    finally:
        stuck = made.remove()
    assert not leaks + stuck


@pytest.fixture
def box(remapped: Remapped) -> Iterator[Api]:
    with contextlib.closing(Api(remapped.host)) as api:
        yield api
        for container in api.get("/containers/json?all=1").json:
            api.delete(f"/containers/{container['Id']}?force=1&v=1")


def start(api: Api, *command: str, **host: Any) -> str:
    made = api.post("/containers/create", {"Image": "box:1", "Cmd": list(command), "HostConfig": host})
    assert made.status == 201, made.body
    id = str(made.json["Id"])
    started = api.post(f"/containers/{id}/start")
    assert started.status == 204, started.body
    return id


def output(api: Api, script: str, **host: Any) -> str:
    """What a container says, to the end."""
    id = start(api, "sh", "-c", script, **host)
    api.wait(id)
    streams = unframe(api.get(f"/containers/{id}/logs?stdout=1&stderr=1").body)
    return (streams["stdout"] + streams["stderr"]).decode()


def execute(api: Api, id: str, script: str, user: str = "") -> str:
    body = {"Cmd": ["sh", "-c", script], "AttachStdout": True, "AttachStderr": True, "User": user}
    made = api.post(f"/containers/{id}/exec", body)
    with api.hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
        streams = unframe(stream.rest())
    return (streams["stdout"] + streams["stderr"]).decode()


def test_root_inside_is_nobody_outside(box: Api, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "closed").mkdir(mode=0o700)
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o011)
    script = "id -u; cat /proc/self/uid_map; touch /host/open/made; touch /host/closed/x; ls -ln / | tail -1"
    said = output(box, script, Binds=[f"{tmp_path}:/host"], NetworkMode="none")
    lines = said.splitlines()
    assert lines[:2] == ["0", f"         0     {FIRST}      65536"]
    assert "Permission denied" in said
    assert (tmp_path / "open/made").stat().st_uid == FIRST
    assert " 0        0 " in lines[-1] or " 0        0 " in lines[-2]
    assert b"name=userns" in box.get("/info").body


def test_the_process_runs_as_a_subordinate_id(box: Api) -> None:
    id = start(box, "sleep", "1000", NetworkMode="none", CapAdd=["ALL"])
    pid = box.get(f"/containers/{id}/json").json["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{FIRST}\t" in status
    # All capabilities of its own namespace, and none of the host's.
    tried = "mount -o remount,rw / ; mknod /tmp/d b 254 0; echo 1 > /proc/sys/kernel/panic; chown 70000 /tmp"
    said = execute(box, id, tried)
    assert said.count("ermission") + said.count("not permitted") + said.count("Invalid") + said.count("Read-only") >= 3
    assert Path(f"/proc/{pid}/ns/user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino


def test_layers_and_changes_keep_the_container_s_owners(box: Api, remapped: Remapped) -> None:
    id = start(box, "sh", "-c", "echo a >> /etc/passwd; touch /new; chown 5:6 /new; rm /bin/awk; sleep 1000")
    wait_until(lambda: "/bin/awk" in box.get(f"/containers/{id}/changes").body.decode(), 10, "it has changed")
    changes = {change["Path"]: change["Kind"] for change in box.get(f"/containers/{id}/changes").json}
    assert changes == {"/bin": 0, "/bin/awk": 2, "/etc": 0, "/etc/passwd": 0, "/new": 1}
    upper = next((remapped.data_root / "snapshots/writable").glob(f"{id}@*")) / "upper"
    assert ((upper / "new").stat().st_uid, (upper / "new").stat().st_gid) == (5, 6)
    assert (upper / "etc/passwd").stat().st_uid == 0
    # Nothing of the image was copied, and nothing given away.
    for layer in (remapped.data_root / "snapshots/layers").iterdir():
        assert (layer / "diff/bin").stat().st_uid == 0


@pytest.mark.parametrize("running", [True, False])
def test_copies_have_the_container_s_owners(box: Api, running: bool) -> None:
    id = start(box, "sleep", "1000", NetworkMode="none", Binds=["remap-copies:/v"])
    execute(box, id, "mkdir /root/d; touch /root/d/mine; chown 7:8 /root/d/mine")
    if not running:
        box.post(f"/containers/{id}/stop?t=0")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("given")
        member.uid, member.gid = 9, 10
        tar.addfile(member)
    targets = ["/root/d", "/v"] if running else ["/root/d"]
    for target in targets:
        assert box.request("PUT", f"/containers/{id}/archive?path={target}", data.getvalue()).status == 200
        got = box.get(f"/containers/{id}/archive?path={target}").body
        with tarfile.open(fileobj=io.BytesIO(got)) as tar:
            owners = {member.name: (member.uid, member.gid) for member in tar}
        base = target.rpartition("/")[2]
        assert owners[f"{base}/given"] == (9, 10)
        assert owners[base] == (0, 0)
        assert owners.get(f"{base}/mine", (7, 8)) == (7, 8)
    if not running:
        box.post(f"/containers/{id}/start")
    assert execute(box, id, "stat -c '%u:%g' /root/d/given").strip() == "9:10"


def test_volumes_serve_both_kinds_of_containers(box: Api) -> None:
    output(box, "touch /v/a; chown 5:6 /v/a", Binds=["remap-both:/v"], NetworkMode="none")
    for host in ({}, {"UsernsMode": "host"}):
        said = output(box, "stat -c '%u:%g' /v/a; id -u; cat /proc/self/uid_map", Binds=["remap-both:/v"], **host)
        assert said.startswith("5:6\n0\n")
        assert (str(FIRST) in said) == (not host)


def test_network_ports_exec_and_names(box: Api) -> None:
    command = "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    ports = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    id = start(box, "sh", "-c", command, PortBindings=ports, CapAdd=["NET_ADMIN"])
    shown = box.get(f"/containers/{id}/json").json["NetworkSettings"]
    port = shown["Ports"]["80/tcp"][0]["HostPort"]
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
                assert answer.read() == b"hello\n"
            break
        except OSError:
            assert time.monotonic() < deadline
    said = execute(box, id, "ip route del default && echo mine; cat /etc/hosts; echo x >> /etc/hosts && echo written")
    assert said.startswith("mine\n")
    assert shown["Networks"]["bridge"]["IPAddress"] in said
    assert said.endswith("written\n")
    assert execute(box, id, "id -u; echo again > /dev/stdout", "1000:1000") == "1000\nagain\n"
    # Who shares its network shares its user namespace.
    assert str(FIRST) in output(box, "cat /proc/self/uid_map; ip addr", NetworkMode=f"container:{id}")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"Privileged": True}, "privileged mode is incompatible with user namespaces"),
        ({"NetworkMode": "host"}, "cannot share the host's network namespace when user namespaces are enabled"),
        ({"PidMode": "host"}, "cannot share the host PID namespace when user namespaces are enabled"),
    ],
)
def test_what_needs_the_host_s_ids(box: Api, asked: dict[str, Any], message: str) -> None:
    made = box.post("/containers/create", {"Image": "box:1", "Cmd": ["true"], "HostConfig": asked})
    assert made.status == 400
    assert made.message.startswith(message)
    assert "4294967295" in output(box, "cat /proc/self/uid_map", UsernsMode="host", **asked)


def test_it_is_found_again_and_goes_on(box: Api, remapped: Remapped) -> None:
    id = start(box, "sleep", "1000")
    box.close()
    remapped.stop()
    remapped.start()
    with contextlib.closing(Api(remapped.host)) as api:
        assert execute(api, id, "id -u; ip -o addr show eth0 | wc -l").startswith("0\n")
        assert api.post(f"/containers/{id}/restart?t=0").status == 204
        assert execute(api, id, "id -u") == "0\n"
