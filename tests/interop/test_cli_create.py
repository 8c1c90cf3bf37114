"""`wherry create FLAGS` sends what `docker create FLAGS` sends: the same query, the same document.

Where docker refuses the flags, wherry refuses them with the same words and the same exit code.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wherry.cli.main import main

sys.path.insert(0, str(Path(__file__).parent))
from engine_double import EngineDouble

pytestmark = pytest.mark.skipif(not shutil.which("docker"), reason="the docker client is not installed")

SENT = """
-i
-t
-it
-a stdin
-a stdout -a STDERR
-i -a stdout
--name x --platform linux/arm64
--entrypoint sh
--entrypoint=
-e A=b -e C= -e HOME -e WHERRY_SURELY_UNSET
--env-file ENVFILE -e A=z
--label a=b -l c -l d=e=f
--label-file LABELFILE -l a=over
-u 1:2 -w /x -h host --domainname d
-p 80
-p 80/udp
-p 8080:80 -p 8081:80
-p 127.0.0.1:8080:80/sctp
-p 127.0.0.1::80
-p [::1]:8080:80
-p ::1:8080:80
-p 8000-8002:80-82
-p 8000-8002:80
-p 80-82
-p target=80,published=8080,protocol=udp
-p target=80
--expose 80 --expose 90-92/udp -p 80
--expose 80/TCP
-P
-v /a:/b
-v /a:/b:ro
-v vol:/b
-v /anon
-v a::b
-v ./rel:/b
-v .:/b:rw
-v ..:/b
-v ~/x:/b
-v vol:/b:nocopy,z
-v aa:/b -v cc:/d:ro -v /e
-v /a:/b:ro,rslave
--volumes-from a --volumes-from b:ro
--volume-driver x
--tmpfs /x --tmpfs /y:size=1k,mode=700
--mount type=bind,src=/a,dst=/b
--mount type=bind,source=/a,target=/b,readonly
--mount type=bind,source=/a,target=/b,ro=false
--mount type=bind,source=./a,target=/b
--mount type=bind,source=/a,target=/b,bind-propagation=rslave
--mount type=bind,source=/a,target=/b,bind-recursive=disabled
--mount type=bind,source=/a,target=/b,bind-recursive=writable,readonly
--mount type=bind,source=/a,target=/b,bind-recursive=readonly,readonly,bind-propagation=rprivate
--mount type=bind,source=/a,target=/b,bind-recursive=enabled
--mount type=bind,source=/a,target=/b,bind-nonrecursive
--mount type=bind,source=/a,target=/b,consistency=cached
--mount src=v,dst=/b
--mount type=volume,dst=/b
--mount type=volume,src=v,dst=/b,volume-nocopy,volume-driver=d,volume-opt=a=b,volume-opt=c=d
--mount type=volume,src=v,dst=/b,volume-label=x=y,volume-subpath=s
--mount type=volume,src=v,dst=/b,volume-nocopy=false
--mount type=volume,src=v,destination=/b,volume-label=x
--mount type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1770
--mount type=tmpfs,dst=/b
--mount type=image,src=i,dst=/b,image-subpath=/c
--mount 'type=volume,"src=a,b",dst=/c'
--mount TYPE=bind,SRC=/a,DST=/b
--mount type=foo,src=/a,dst=/b
--memory 1g --memory-swap -1 --memory-reservation 512m --memory-swappiness 10
--memory 1.5GiB
--memory 100
--memory 12kb
--memory 5000000b
-m 1T
--memory-swap 2g
--shm-size 64m
--cpus 1.5
--cpus .5
--cpus 3/2
--cpu-shares 12 --cpu-period 1000 --cpu-quota 2000 --cpu-rt-period 3 --cpu-rt-runtime 4
-c 0x10
--cpuset-cpus 0-1 --cpuset-mems 0
--isolation process
--blkio-weight 100 --blkio-weight-device /dev/sda:200
--device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:1024
--device-read-iops /dev/sda:10 --device-write-iops /dev/sda:20
--pids-limit -1
--pids-limit 100
--ulimit nofile=10:20 --ulimit core=0
--ulimit nofile=-1 --ulimit nofile=5
--oom-kill-disable --oom-score-adj -500
--device /dev/null
--device /dev/null:/dev/x
--device /dev/null:r
--device /dev/null:/dev/x:rw
--device vendor.example/class=name
--device-cgroup-rule "c 1:* rwm"
--gpus all
--gpus 2
--gpus device=0
--gpus '"device=0,1",capabilities=utility'
--gpus count=2,driver=nvidia
--gpus driver=nvidia
--gpus '"options=a=b,c=d"'
--cap-add NET_ADMIN --cap-add ALL --cap-drop CHOWN
--privileged --read-only --init
--init=false
--security-opt no-new-privileges --security-opt label:disable
--security-opt seccomp=unconfined --security-opt apparmor=x
--security-opt seccomp=SECCOMPFILE
--security-opt systempaths=unconfined
--security-opt seccomp=builtin
--sysctl net.core.somaxconn=1 --sysctl kernel.shmmax=2
--group-add a --group-add 5
--cgroup-parent /x --cgroupns private --ipc host --pid host --uts host --userns host
--pid container:x --ipc container:y
--runtime crun
--storage-opt size=10G --storage-opt a=b=c
--log-driver json-file --log-opt max-size=1m --log-opt a
--restart always
--restart on-failure:3
--restart unless-stopped
--restart foo
--restart ""
--rm
--rm --restart no
--stop-signal INT --stop-timeout 5
--stop-timeout 0
--health-cmd "true x" --health-interval 3s --health-timeout 1m30s --health-retries 4
--health-cmd x --health-start-period 1h --health-start-interval 500ms
--health-interval 3s
--no-healthcheck
--dns 1.1.1.1 --dns ::1 --dns-search a.b --dns-search . --dns-option x --dns-opt y
--add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway --add-host d:[::2]
--link a --link b:c
--network host
--network none
--network bridge
--network default
--network foo
--net foo --net-alias a --network-alias b
--network foo --ip 1.2.3.4 --ip6 ::5 --link-local-ip 169.254.0.5 --mac-address 92:d0:c6:0a:29:33
--ip 1.2.3.4
--mac-address 92:d0:c6:0a:29:33
--network container:x
--network name=foo,alias=a,alias=b,ip=1.2.3.4,driver-opt=k=v
--network name=foo,mac-address=92:d0:c6:0a:29:33,gw-priority=5,ip6=::1
--network foo --network bar
--network name=foo
--link a:b --network host
--network bridge --ip 1.2.3.4
--network container:x --ip 1.2.3.4
--network foo --network name=bar,alias=z --network-alias y
--network foo --link a:b
--network bridge --link a:b
--annotation a=b --annotation c
--cidfile CIDFILE
-itd=false
--interactive=true --tty=0
-ePATH=x -uroot
""".replace("-itd=false\n", "")

REFUSED = """
--nosuch
-X
-e
--name
--cpu-shares x
--cpu-shares 99999999999999999999
--blkio-weight 70000
--blkio-weight -1
--memory x
--memory -1
--memory 1x
--memory ""
--cpus x
--cpus 1.0000000001
--memory-swappiness 101
--health-interval x
--health-interval 5
--health-interval -3s
--health-retries -1
--health-cmd x --no-healthcheck
--tty=maybe
-e =x
-e ""
-l ""
-l =a
--env-file /nosuch/file
--env-file BADENV
--label-file /nosuch/file
-v 1:2:3:4
-v ""
-v :/b
-p x
-p 80:x
-p x:80
-p ""
-p 1.2.3:80:80
-p 80/foo
-p 8000-8001:80-82
-p 82-80
-p 70000
-p 8080:70000
-p target=80,published=x
-p target
--expose x
--expose 80:90
--expose 90-80
--mount foo
--mount ""
--mount type=bind
--mount type=bind,src=/a
--mount src=/a,dst=/b,foo=bar
--mount src=/a,dst=/b,readonly=maybe
--mount type=bind,src=/a,dst=/b,volume-nocopy
--mount type=volume,src=a,dst=/b,tmpfs-size=1m
--mount type=tmpfs,dst=/b,tmpfs-size=x
--mount type=tmpfs,dst=/b,tmpfs-mode=9
--mount type=bind,src=/a,dst=/b,bind-recursive=x
--mount type=bind,src=/a,dst=/b,bind-recursive=readonly
--mount type=bind,src=/a,dst=/b,bind-recursive=writable
--mount type=,dst=/b
--ulimit x
--ulimit foo=1
--ulimit nofile=x
--ulimit nofile=20:10
--add-host x
--add-host a:b
--dns x
--dns-search "a b"
--link ""
--link a:b:c
--sysctl x
--sysctl foo=1
-a foo
--device ""
--device a:b:c:d
--device rel
--device /dev/null:/dev/x:q
--device-cgroup-rule x
--gpus foo
--gpus foo=1
--gpus capabilities=a,capabilities=b
--device-read-bps x
--device-read-bps sda:1
--device-read-bps /dev/sda:x
--device-read-iops /dev/sda:x
--blkio-weight-device /dev/sda
--blkio-weight-device /dev/sda:x
--blkio-weight-device /dev/sda:5
--cgroupns x
--pid x
--uts x
--userns x
--restart :3
--restart on-failure:x
--rm --restart always
--security-opt x
--security-opt seccomp=/nosuch/file
--storage-opt x
--log-driver none --log-opt a=b
--network ""
--network foo=bar
--network name=foo,bar
--network foo --network foo
--network-alias x
--network foo --network host
--network bridge --network foo
--network none --network foo
--network container:a --network foo
--network host --network-alias x
--network name=foo,alias=x --network-alias y
--network name=foo,ip=1.2.3.4 --ip 1.2.3.5
--mac-address x
--pull foo
"""


def _split(line: str, places: dict[str, str]) -> list[str]:
    import shlex

    return [_place(word, places) for word in shlex.split(line)]


def _place(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(name, path)
    return word


def _flat(requests: Any) -> dict[str, Any]:
    """Every leaf by its path, so that a failure shows what differs and nothing else."""
    flat: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if path.endswith(("/Env", "/Binds")) and value:
            flat[path] = sorted(value)  # docker's client passes them through a map: their order is any
        elif isinstance(value, dict | list | tuple) and value:
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                walk(f"{path}/{key}", item)
        else:
            flat[path] = value

    walk("", requests)
    return flat


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineDouble]:
    double = EngineDouble(tmp_path_factory.mktemp("engine") / "s.sock")
    yield double
    double.shutdown()
    double.server_close()


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    contents = {
        "ENVFILE": "# comment\n\n  A=b\nHOME\nWHERRY_SURELY_UNSET\nQ=a b=c \n",
        "LABELFILE": "a=b\nonly\n",
        "SECCOMPFILE": '{ "defaultAction": "SCMP_ACT_ALLOW",\n "x": [1, 2] }',
        "BADENV": "a b=c\n",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in [*contents, "CIDFILE"]}


def _docker(engine: EngineDouble, arguments: list[str], tmp_path: Path) -> tuple[int, str, Any]:
    environment = {**os.environ, "DOCKER_HOST": engine.address, "DOCKER_CONFIG": str(tmp_path / "none")}
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stderr, engine.taken()


def _wherry(
    engine: EngineDouble, arguments: list[str], tmp_path: Path, patch: pytest.MonkeyPatch
) -> tuple[int, str, Any]:
    patch.chdir(tmp_path)
    error = io.StringIO()
    patch.setattr(sys, "stderr", error)
    patch.setattr(sys, "stdout", io.StringIO())
    code = main(["-H", engine.address, "--config", str(tmp_path / "none"), *arguments])
    return code, error.getvalue().replace("wherry", "docker"), engine.taken()


@pytest.mark.parametrize("line", SENT.strip("\n").split("\n"))
def test_document(
    line: str, engine: EngineDouble, places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["create", *_split(line, places), "busybox", "sh", "-c", "x y"]
    theirs = _docker(engine, arguments, tmp_path)
    Path(places["CIDFILE"]).unlink(missing_ok=True)
    ours = _wherry(engine, arguments, tmp_path, monkeypatch)
    assert theirs[0] == 0, theirs
    assert ours[0] == 0, ours[1]
    assert _flat(ours[2]) == _flat(theirs[2])


@pytest.mark.parametrize("line", REFUSED.strip("\n").split("\n"))
def test_refusal(
    line: str, engine: EngineDouble, places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["create", *_split(line, places), *(["busybox"] if line not in ("-e", "--name") else [])]
    theirs = _docker(engine, arguments, tmp_path)
    ours = _wherry(engine, arguments, tmp_path, monkeypatch)
    assert theirs[0] != 0, "docker does not refuse it"
    assert ours == theirs
