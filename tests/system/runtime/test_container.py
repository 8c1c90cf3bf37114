"""Containers as the specification describes them, on the real kernel."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest
from bundle import Box, config, mount, read_all

from wherry.errors import Conflict, FailedPrecondition, Internal, InvalidArgument, NotFound, PermissionDenied
from wherry.kernel.processes import pidfd_has_exited
from wherry.runtime.launch import drive
from wherry.spec.mount import Mount

pytestmark = pytest.mark.root


def test_namespaces_are_its_own(box: Box) -> None:
    out = box.run("sh", "-c", "echo $$ $(hostname) $(ls /sys/class/net) $(ip link show lo | grep -c LOWER_UP)")
    assert out == "1 box lo 1\n"
    kinds = ("pid", "net", "ipc", "uts", "mnt", "cgroup")
    inside = box.run("sh", "-c", "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done").split()
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}


def test_devices_and_links(box: Box) -> None:
    command = (
        "ls /dev; echo hi >/dev/null; head -c 3 /dev/zero | wc -c; for l in ptmx stdin fd; do readlink /dev/$l; done"
    )
    out = set(box.run("sh", "-c", command).split())
    devices = {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "stdout", "stderr"}
    assert out >= {*devices, "ptmx", "3", "pts/ptmx", "/proc/self/fd/0", "/proc/self/fd"}


def test_masked_and_read_only_paths(box: Box) -> None:
    out = box.run(
        "sh", "-c", "wc -c </proc/timer_list; ls /sys/firmware; echo 1 >/proc/sys/kernel/hostname; mkdir /sys/x"
    )
    assert out.splitlines()[0] == "0"
    assert out.count("Read-only file system") == 2


def test_identity(box: Box) -> None:
    (box.rootfs / "home").mkdir(exist_ok=True)
    user = {"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27}
    caps = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}
    caps |= {"inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    out = box.run(
        "sh", "-c", "id | sed 's/([a-z]*)//g'; umask; pwd; grep -E '^(Cap|NoNew)' /proc/self/status",
        user=user, cwd="/home", capabilities=caps, noNewPrivileges=True,
    )  # fmt: skip
    lines = out.splitlines()
    assert lines[:3] == ["uid=1000 gid=1001 groups=5,7", "0027", "/home"]
    found = dict(line.split(":\t") for line in lines[3:])
    kill, both = f"{1 << 5:016x}", f"{1 << 5 | 1:016x}"
    assert found == {
        "CapInh": kill, "CapPrm": kill, "CapEff": kill, "CapBnd": both, "CapAmb": kill, "NoNewPrivs": "1",
    }  # fmt: skip


def test_no_inheritable_capabilities_unless_asked_for(box: Box) -> None:
    """CVE-2022-24769."""
    out = box.run("grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status")
    assert out.split() == ["CapInh:", "0" * 16, "CapAmb:", "0" * 16]


def test_limits_are_set_or_clamped_with_a_warning(box: Box) -> None:
    hard = __import__("resource").getrlimit(__import__("resource").RLIMIT_NOFILE)[1]
    limits = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NOFILE", "soft": 99, "hard": hard + 1}]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    identifier, launched = box.start(config("sh", "-c", "ulimit -c; ulimit -n", rlimits=limits), (-1, writing, -1))
    os.close(writing)
    assert read_all(reading).split() == ["0", "99"]
    box.wait(identifier, launched)
    from wherry.kernel.capabilities import is_effective

    assert bool(launched.warnings) == (not is_effective("CAP_SYS_RESOURCE"))


def test_sysctls_of_its_own_namespaces_only(box: Box) -> None:
    document = config("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax")
    document["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
    assert box.output(document).split() == ["1", "4096"]
    document["linux"]["sysctl"] = {"kernel.panic": "1"}
    with pytest.raises(InvalidArgument, match="not separate"):
        box.output(document)
    document["linux"]["sysctl"] = {"net.ipv4.ip_forward": "0"}
    document["linux"]["namespaces"] = [n for n in document["linux"]["namespaces"] if n["type"] != "network"]
    with pytest.raises(InvalidArgument, match="would change the host"):
        box.output(document)


def test_bind_mounts(box: Box, tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "file").write_text("hello")
    document = config(
        "sh", "-c", "cat /mnt/a/file /mnt/f; touch /mnt/a/new; touch /mnt/ro/x; ls /mnt/rro/deep; touch /mnt/rro/deep/x"
    )
    document["mounts"] += [
        mount("/mnt/a", "bind", "rbind", "rprivate", source=str(tmp_path / "data")),
        mount("/mnt/f", "bind", "bind", "ro", source=str(tmp_path / "data" / "file")),
        mount("/mnt/ro", "bind", "rbind", "ro", source=str(tmp_path / "data")),
        mount("/mnt/rro", "bind", "rbind", "rro", source=str(tmp_path / "data")),
    ]
    document["mounts"].insert(len(document["mounts"]) - 1, mount("/mnt/x", "tmpfs", "size=1m"))
    out = box.output(document)
    assert out.startswith("hellohello")
    assert out.count("Read-only file system") == 2
    assert (tmp_path / "data" / "new").exists()


def test_tmpfs_with_copy_up(box: Box) -> None:
    (box.rootfs / "opt" / "d").mkdir(parents=True)
    (box.rootfs / "opt" / "d" / "f").write_text("kept")
    os.chown(box.rootfs / "opt" / "d" / "f", 7, 8)
    document = config("sh", "-c", "stat -c '%u %g %s' /opt/d/f; echo x >/opt/d/g; stat -f -c %T /opt")
    document["mounts"].append(mount("/opt", "tmpfs", "tmpcopyup", "size=1m"))
    assert box.output(document).split() == ["7", "8", "4", "tmpfs"]
    assert not (box.rootfs / "opt" / "d" / "g").exists()


def test_read_only_root_and_overlay_from_mounts(box: Box, tmp_path: Path) -> None:
    for name in ("upper", "work", "lower2"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower2" / "top").write_text("top")
    overlay = Mount("overlay", "overlay", (f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"),
                    (str(tmp_path / "lower2"), str(box.rootfs)))  # fmt: skip
    document = config("/bin/sh", "-c", "cat /top; echo 1 >/made")
    document["root"]["path"] = str(tmp_path / "merged")
    (tmp_path / "merged").mkdir()
    assert box.output(document, layers=(overlay,)) == "top"
    assert (tmp_path / "upper" / "made").exists()
    assert str(tmp_path / "merged") not in Path("/proc/self/mountinfo").read_text()
    document["root"]["readonly"] = True
    assert "Read-only" in box.output(document, layers=(overlay,))


def test_user_namespace(box: Box, tmp_path: Path) -> None:
    command = "id -u; cat /proc/self/uid_map /proc/self/gid_map; echo x >/dev/null; touch /mnt/f; stat -c %u /mnt/f"
    document = config("sh", "-c", command)
    document["linux"]["namespaces"].append({"type": "user"})
    document["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    document["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    (box.rootfs / "mnt").mkdir(exist_ok=True)
    document["mounts"].append(mount("/mnt", "bind", "rbind", source=str(data)))
    out = box.output(document).split()
    assert out == ["0", "0", "100000", "65536", "0", "200000", "65536", "0"]
    assert (data / "f").stat().st_uid == 100000


def test_a_user_namespace_gives_no_capability_back(box: Box) -> None:
    """In a new one a process has all of them, also those that the runtime itself was denied."""
    sets = {name: ["CAP_CHOWN"] for name in ("bounding", "permitted", "effective")}
    document = config("sh", "-c", "grep -E 'Cap(Bnd|Prm|Eff)' /proc/self/status", capabilities=sets)
    document["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        document["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert {int(line.split()[1], 16) for line in box.output(document).splitlines()} == {1}


def test_idmapped_mount(box: Box, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "f").touch()
    document = config("stat", "-c", "%u", "/mnt/f")
    entry = mount("/mnt", "bind", "rbind", source=str(data))
    maps = [{"containerID": 0, "hostID": 1234, "size": 1}]
    document["mounts"].append(entry | {"uidMappings": maps, "gidMappings": maps})
    assert box.output(document).split() == ["1234"]


def test_joined_namespaces(box: Box) -> None:
    first, launched = box.start(config("sleep", "60"))
    pid = launched.process.pid
    document = config(
        "sh", "-c", "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; ps | grep -c '[s]leep 60'"
    )
    document["linux"]["namespaces"] = [{"type": "mount"}] + [
        {"type": kind, "path": f"/proc/{pid}/ns/{file}"}
        for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"))
    ]
    document["hostname"] = ""
    out = box.output(document).split()
    assert out[:4] == [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc", "uts", "pid")]
    assert int(out[4]) >= 1
    box.runtime.kill(first, signal.SIGKILL)
    assert box.wait(first, launched) == 137


@pytest.mark.parametrize("joined", [False, True])
def test_shared_mount_namespaces_are_left_as_they_are(box: Box, joined: bool) -> None:
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        pid = str(holder.pid) if joined else "self"
        namespace = os.readlink(f"/proc/{pid}/ns/mnt")
        document = config("sleep", "60")
        entries = [entry for entry in document["linux"]["namespaces"] if entry["type"] != "mount"]
        document["linux"]["namespaces"] = entries + [{"type": "mount", "path": f"/proc/{pid}/ns/mnt"}] * joined
        document["root"]["readonly"] = True
        identifier, launched = box.start(document)
        look = "readlink /proc/1/ns/mnt; ps | grep -c '[s]leep'; touch /bin/x || : >>/proc/sys/kernel/hostname"
        seen = box.exec(identifier, "sh", "-c", look).splitlines()
        assert {namespace, "1"} < set(seen)
        assert str(seen).count("Read-only file system") == 2, seen
        assert str(box.path) not in Path(f"/proc/{pid}/mountinfo").read_text()
        drive(box.runtime.delete(identifier, force=True))
        os.waitpid(launched.process.pid, 0)
    finally:
        holder.kill()
        holder.communicate()


def test_time_namespace(box: Box) -> None:
    document = config("cat", "/proc/uptime")
    document["linux"]["namespaces"].append({"type": "time"})
    document["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000_000, "nanosecs": 0}}
    assert float(box.output(document).split()[0]) > 1_000_000_000


def test_terminal(box: Box) -> None:
    size = {"height": 33, "width": 77}
    document = config("sh", "-c", "tty; stty size; test -c /dev/console && echo console; read x; echo got $x",
                      terminal=True, consoleSize=size)  # fmt: skip
    identifier, launched = box.start(document)
    os.write(launched.console, b"hi\n")
    seen = b""
    try:
        while piece := os.read(launched.console, 4096):
            seen += piece
    except OSError:  # EIO: the last slave is closed
        pass
    assert box.wait(identifier, launched) == 0
    lines = seen.decode().replace("hi\r\n", "", 1).split("\r\n")
    assert lines[:4] == ["/dev/pts/0", "33 77", "console", "got hi"]
    fcntl.ioctl(launched.console, termios.TIOCSWINSZ, struct.pack("HHHH", 1, 1, 0, 0))
    os.close(launched.console)


def test_create_then_start(box: Box) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    identifier, launched = box.start(config("echo", "ran"), (-1, writing, -1), wait=True)
    os.close(writing)
    assert box.runtime.status(identifier).status == "created"
    assert not select.select([reading], [], [], 0)[0]
    drive(box.runtime.start(identifier))
    assert read_all(reading) == "ran\n"
    assert box.wait(identifier, launched) == 0
    assert box.runtime.status(identifier).status == "stopped"
    with pytest.raises(FailedPrecondition, match="stopped"):
        drive(box.runtime.start(identifier))


def test_create_tells_of_a_missing_program(box: Box) -> None:
    with pytest.raises(NotFound, match=r'exec: "nothing-here": executable file not found in \$PATH'):
        box.start(config("nothing-here"), wait=True)
    assert box.runtime.list() == []


def test_start_tells_of_a_program_that_cannot_run(box: Box) -> None:
    box.script("garbage", "\x7fnot an executable")
    identifier, launched = box.start(config("/garbage"), wait=True)
    with pytest.raises(PermissionDenied, match="exec format error"):
        drive(box.runtime.start(identifier))
    assert box.wait(identifier, launched) == 1


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        ("/no", NotFound, 'exec: "/no": stat /no: no such file or directory'),
        ("/etc", PermissionDenied, 'exec: "/etc": is a directory: permission denied'),
        ("/plain", PermissionDenied, 'exec: "/plain": permission denied'),
        ("/garbage", PermissionDenied, 'exec: "/garbage": exec format error'),
    ],
)
def test_programs_that_cannot_run(box: Box, program: str, error: type[Exception], text: str) -> None:
    (box.rootfs / "etc").mkdir(exist_ok=True)
    (box.rootfs / "plain").touch(mode=0o644)
    box.script("garbage", "\x7fnot an executable")
    with pytest.raises(error) as caught:
        box.run(program)
    assert str(caught.value) == text
    assert box.runtime.list() == []


def test_exec(box: Box) -> None:
    identifier, launched = box.start(config("sleep", "60"))
    inside = box.exec(identifier, "sh", "-c", "hostname; ps | grep -c '[s]leep 60'; readlink /proc/self/ns/pid")
    assert inside.split() == ["box", "1", os.readlink(f"/proc/{launched.process.pid}/ns/pid")]
    assert set(box.runtime.processes(identifier)) == {launched.process.pid}
    with pytest.raises(NotFound, match="executable file not found"):
        box.exec(identifier, "nothing-here")
    drive(box.runtime.pause(identifier))
    assert box.runtime.status(identifier).status == "paused"
    box.runtime.resume(identifier)
    drive(box.runtime.delete(identifier, force=True))
    assert pidfd_has_exited(launched.pidfd)
    os.waitpid(launched.process.pid, 0)


def test_hooks(box: Box, tmp_path: Path) -> None:
    log = tmp_path / "log"
    document = config("true")

    def hook(point: str, command: str = "true") -> list[dict[str, Any]]:
        text = f"read -r x; echo {point} $x >>{log}; {command}"
        return [{"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"], "timeout": 10}]

    document["hooks"] = {
        point: hook(point) for point in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    document["hooks"]["startContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", "cat >/state"]}]
    identifier, launched = box.start(document)
    box.wait(identifier, launched)
    drive(box.runtime.delete(identifier))
    assert [line.split()[0] for line in log.read_text().splitlines()] == [
        "prestart", "createRuntime", "createContainer", "poststart", "poststop",
    ]  # fmt: skip
    assert f'"pid":{launched.process.pid}' in log.read_text().splitlines()[0]
    assert identifier in (box.rootfs / "state").read_text()

    document["hooks"] = {"createRuntime": hook("createRuntime", "exit 3")}
    with pytest.raises(Exception, match="createRuntime hook /bin/sh: exit status 3"):
        box.start(document)
    assert box.runtime.list() == []


def test_failing_hooks_end_the_container_or_warn(box: Box) -> None:
    false, mark = {"path": "/bin/false"}, box.path / "mark"
    document = config("sleep", "60")
    document["hooks"] = {"poststart": [false]}
    with pytest.raises(Internal, match="poststart hook /bin/false: exit status 1"):
        box.start(document)
    assert box.runtime.list() == []
    identifier, launched = box.start(document, wait=True)
    with pytest.raises(Internal, match="poststart hook"):
        drive(box.runtime.start(identifier))
    assert box.wait(identifier, launched) == 137

    document = config("true")
    document["hooks"] = {"poststop": [false, {"path": "/bin/sh", "args": ["sh", "-c", f"echo >{mark}"]}, false]}
    identifier, launched = box.start(document)
    box.wait(identifier, launched)
    assert drive(box.runtime.delete(identifier)).count("poststop hook /bin/false") == 2
    assert mark.exists()


def test_ids_are_unique_and_safe(box: Box) -> None:
    identifier, launched = box.start(config("sleep", "60"))
    with pytest.raises(Conflict):
        drive(box.runtime.run(identifier, str(box.path / "bundle"), (), (-1, -1, -1)))
    with pytest.raises(FailedPrecondition, match="running"):
        drive(box.runtime.delete(identifier))
    for bad in ("", "..", "a/b", "a~b", "x" * 256):
        with pytest.raises(InvalidArgument):
            box.runtime.status(bad)
    drive(box.runtime.delete(identifier, force=True))
    os.waitpid(launched.process.pid, 0)
    with pytest.raises(NotFound):
        box.runtime.status(identifier)


def test_seccomp(box: Box) -> None:
    document = config("mkdir", "/x", noNewPrivileges=True)
    document["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    assert "Operation not supported" in box.output(document)
    document["process"]["noNewPrivileges"] = False
    assert "Operation not supported" in box.output(document)
    # What only the set-up needs, the program may be denied.
    document["linux"]["seccomp"]["syscalls"][0]["names"] = ["mkdir", "mkdirat", "getcwd", "chdir"]
    assert "Operation not supported" in box.output(document)


def test_nothing_is_left_on_the_host(box: Box) -> None:
    before = set(os.listdir("/proc/self/fd"))
    assert box.run("true") == ""
    with pytest.raises(NotFound):
        box.run("nothing-here")
    assert str(box.path) not in Path("/proc/self/mountinfo").read_text()
    assert set(os.listdir("/proc/self/fd")) == before
