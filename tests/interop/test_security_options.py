"""What a container's processes may do, as the container itself finds out; and what each engine refuses."""

import json
import re
from typing import Any

import pytest

from engine_client import Api, unframe

DENY = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}


def output(api: Api, image: str, name: str, script: str, host: dict[str, Any] | None = None, **config: Any) -> str:
    """What a shell in a container says, to the end."""
    document = {"Image": image, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none", **(host or {})}}
    id = api.run(name, **document, **config)
    api.wait(id)
    streams = unframe(api.get(f"/containers/{id}/logs?stdout=1&stderr=1").body)
    return (streams["stdout"] + streams["stderr"]).decode()


# dockerd leaves the tmpfs above v1's hierarchies writable.
CGROUPS = "grep -E ' /sys/fs/cgroup(/memory)? ' /proc/self/mounts | tail -n1"
NNP = "grep NoNewPrivs /proc/self/status"


@pytest.mark.parametrize(
    ("asked", "script", "expected"),
    [
        ({"SecurityOpt": ["no-new-privileges"]}, NNP, "NoNewPrivs:\t1\n"),
        ({"SecurityOpt": ["no-new-privileges:true"]}, NNP, "NoNewPrivs:\t1\n"),
        ({"SecurityOpt": ["no-new-privileges=0"]}, NNP, "NoNewPrivs:\t0\n"),
        ({"SecurityOpt": ["seccomp=unconfined"]}, "grep Seccomp: /proc/self/status", "Seccomp:\t0\n"),
        ({"SecurityOpt": ["seccomp:unconfined"]}, "grep Seccomp: /proc/self/status", "Seccomp:\t0\n"),
        ({"SecurityOpt": ["seccomp=builtin"]}, "grep Seccomp: /proc/self/status", "Seccomp:\t2\n"),
        ({"SecurityOpt": [f"seccomp={json.dumps(DENY)}"]}, "mkdir /tmp/x || echo no", "(?s)no\n.*not permitted.*"),
        ({"SecurityOpt": [f"seccomp={json.dumps(DENY)}"], "Privileged": True}, "mkdir /x || echo no", "(?s).*no\n.*"),
        ({"Privileged": True}, "grep Seccomp: /proc/self/status", "Seccomp:\t0\n"),
        ({"CapDrop": ["ALL"]}, "grep CapBnd /proc/self/status", "CapBnd:\t0000000000000000\n"),
        ({"CapDrop": ["all"], "CapAdd": ["chown", "CAP_KILL"]}, "grep CapEff /proc/self/status", "CapEff:\t0{14}21\n"),
        ({}, "grep CapBnd /proc/self/status", "CapBnd:\t00000000a80425fb\n"),
        ({"GroupAdd": ["wheel", "4000"]}, "id -G", "0 10( 10)? 4000\n"),
        ({"ReadonlyRootfs": True}, "touch /x || echo no", "(?s)no\n.*Read-only file system.*"),
        (
            {"MaskedPaths": ["/proc/uptime"], "ReadonlyPaths": []},
            "wc -c < /proc/uptime; wc -c < /proc/keys",
            "0\n[0-9]+\n",
        ),
        ({}, "wc -c < /proc/keys; echo x > /proc/sys/kernel/hostname || echo no", "(?s)0\nno\n.*Read-only.*"),
        ({"Sysctls": {"kernel.shmmax": "12345678"}}, "cat /proc/sys/kernel/shmmax", "12345678\n"),
        ({"Sysctls": {"net/ipv4/ip_forward": "0"}}, "cat /proc/sys/net/ipv4/ip_forward", "0\n"),
        ({}, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n"),
        ({}, "cat /proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n"),
        (
            {"Sysctls": {"net.ipv4.ip_unprivileged_port_start": "99"}},
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
            "99\n",
        ),
        ({"SecurityOpt": ["writable-cgroups"]}, CGROUPS, ".* rw,.*\n"),
        ({"SecurityOpt": ["writable-cgroups=false"]}, CGROUPS, ".* ro,.*\n"),
        (
            {"SecurityOpt": ["writable-cgroups=false"], "Privileged": True},
            CGROUPS,
            ".* ro,.*\n",
        ),
        ({"SecurityOpt": ["label=disable", "apparmor=unconfined"]}, "echo ran", "ran\n"),
        ({"UsernsMode": "host"}, "cat /proc/self/uid_map", r" +0 +0 +4294967295\n"),
        ({"UTSMode": "host", "NetworkMode": "bridge"}, "readlink /proc/self/ns/uts", "uts:.*\n"),
        ({"IpcMode": "none"}, "mount | grep -c /dev/shm", "0\n"),
        ({"IpcMode": "private", "ShmSize": 2 << 20}, "df -k /dev/shm | tail -1 | awk '{print $2}'", "2048\n"),
        ({"CgroupnsMode": "private"}, "grep -c ':/$' /proc/self/cgroup", "[1-9][0-9]*\n"),
        ({"OomScoreAdj": 321}, "cat /proc/self/oom_score_adj", "321\n"),
    ],
)
def test_options(api: Api, image: str, name: str, asked: dict[str, Any], script: str, expected: str) -> None:
    said = output(api, image, name, script, asked)
    assert re.fullmatch(expected, said), said


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n"),
        ("1000", "uid=1000 gid=0(root) groups=0(root)\n"),
        ("1000:1001", "uid=1000 gid=1001 groups=1001\n"),
        ("daemon", r"uid=1\(daemon\) gid=1\(daemon\) groups=.*\n"),
        ("0:wheel", r"uid=0\(root\) gid=10\(wheel\) groups=10\(wheel\)\n"),
        (":wheel", r"uid=0\(root\) gid=10\(wheel\) groups=10\(wheel\)\n"),
    ],
)
def test_users(api: Api, image: str, name: str, user: str, expected: str) -> None:
    said = output(api, image, name, "id", User=user)
    assert said == expected or re.fullmatch(expected, said), said


def refusal(api: Api, image: str, name: str, host: dict[str, Any], config: dict[str, Any]) -> str:
    made = api.post(f"/containers/create?name={name}", {"Image": image, "Cmd": ["true"], "HostConfig": host, **config})
    if made.status != 201:
        assert made.status in (400, 500), made.body
        return str(made.message)
    started = api.post(f"/containers/{made.json['Id']}/start")
    return "" if started.status == 204 else str(started.message)


@pytest.mark.parametrize(
    ("asked", "config", "message"),
    [
        ({"SecurityOpt": ["foo=bar"]}, {}, '^invalid --security-opt 2: "foo=bar"$'),
        ({"SecurityOpt": ["foo"]}, {}, '^invalid --security-opt 1: "foo"$'),
        ({"SecurityOpt": ["no-new-privileges:bad"]}, {}, '^invalid --security-opt 2: "no-new-privileges:bad"$'),
        ({"SecurityOpt": ["writable-cgroups=bad"]}, {}, '^invalid --security-opt 2: "writable-cgroups=bad"$'),
        ({"SecurityOpt": ["seccomp=bad"]}, {}, "^Decoding seccomp profile failed: "),
        ({"SecurityOpt": ['seccomp={"defaultAction":"FOO"}']}, {}, "FOO.* action|action .*FOO"),
        ({"CapAdd": ["FOO"]}, {}, '^invalid CapAdd: unknown capability: "CAP_FOO"$'),
        ({"CapDrop": ["CAP_ALL"]}, {}, '^invalid CapDrop: unknown capability: "CAP_ALL"$'),
        ({"GroupAdd": ["nosuch"]}, {}, "^unable to find group nosuch: no matching entries in group file$"),
        ({"GroupAdd": ["-4"]}, {}, "^uids and gids must be in range 0-2147483647$"),
        ({}, {"User": "nosuch"}, "^unable to find user nosuch: no matching entries in passwd file$"),
        ({}, {"User": "99999999999"}, "^uids and gids must be in range 0-2147483647$"),
        ({"PidMode": "foo"}, {}, "^invalid PID mode: foo$"),
        ({"PidMode": "container:wt-nope"}, {}, "^No such container: wt-nope$"),
        ({"IpcMode": "foo"}, {}, "^invalid IPC mode: foo$"),
        ({"UTSMode": "foo"}, {}, "^invalid UTS mode: foo$"),
        ({"UTSMode": "host"}, {"Hostname": "x"}, "^conflicting options: hostname and the UTS mode$"),
        ({"CgroupnsMode": "foo"}, {}, "^invalid cgroup namespace mode: foo$"),
        ({"Sysctls": {"vm.swappiness": "1"}}, {}, 'sysctl "vm.swappiness" is not in a separate kernel namespace$'),
        (
            {"NetworkMode": "host", "Sysctls": {"net.ipv4.ip_forward": "1"}},
            {},
            'sysctl "net.ipv4.ip_forward" not allowed in host network namespace$',
        ),
        ({"IpcMode": "host", "Sysctls": {"kernel.shmmax": "1"}}, {}, 'sysctl "kernel.shmmax" .*not allowed in'),
        ({"Annotations": {"": "x"}}, {}, "^invalid Annotations: the empty string is not permitted"),
        (
            {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]},
            {},
            r'^could not select device driver "" with capabilities: \[\[gpu\]\]',
        ),
        (
            {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["wt.nope/class=x"]}]},
            {},
            "^CDI device injection failed: unresolvable CDI devices wt.nope/class=x$",
        ),
        (
            {"DeviceRequests": [{"Driver": "cdi", "Count": 2, "DeviceIDs": ["a.com/b=c"]}]},
            {},
            "^unexpected count in CDI device request$",
        ),
    ],
)
def test_refusals(api: Api, image: str, name: str, asked: dict[str, Any], config: dict[str, Any], message: str) -> None:
    said = refusal(api, image, name, asked, config)
    assert re.search(message, said), said


def test_namespaces_of_another_container(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sleep", "1000"], HostConfig={"IpcMode": "shareable"})
    kinds = {"pid": "PidMode", "ipc": "IpcMode", "net": "NetworkMode"}
    mine = output(api, image, f"{name}-a", "readlink /proc/1/ns/pid /proc/self/ns/ipc /proc/self/ns/net")
    for kind, mode in kinds.items():
        host = {mode: f"container:{name}"}
        script = f"readlink /proc/self/ns/{kind}; cat /proc/1/cmdline | tr '\\0' ' '"
        theirs = output(api, image, f"{name}-{kind}", script, host)
        namespace = theirs.splitlines()[0]
        assert namespace not in mine
        made = api.post(
            f"/containers/{name}/exec", {"Cmd": ["readlink", f"/proc/self/ns/{kind}"], "AttachStdout": True}
        )
        with api.hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
            assert unframe(stream.rest())["stdout"].decode().strip() == namespace
        assert ("sleep 1000" in theirs) == (kind == "pid")
    private = output(api, image, f"{name}-p", "echo ran", {"IpcMode": "private"})
    assert private == "ran\n"
    refused = api.create(f"{name}-q", Image=image, Cmd=["true"], HostConfig={"IpcMode": f"container:{name}-p"})
    assert api.post(f"/containers/{refused}/start").status in (400, 409, 500)
