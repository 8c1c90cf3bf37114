"""`wherry-runtime` as podman and containerd call it: command lines, formats, exit statuses."""

import array
import errno
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle import Box, config

pytestmark = pytest.mark.root
COMMAND = str(Path(sys.executable).with_name("wherry-runtime"))


class Cli:
    """The command on the box's bundle and a root of its own."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.root = str(box.path / "cli")
        self.bundle = str(box.path / "bundle")

    def command(self, *arguments: str) -> list[str]:
        return [COMMAND, "--root", self.root, *arguments]

    def __call__(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        more = {"capture_output": True, "stdin": subprocess.DEVNULL, "timeout": 60, **more}
        return subprocess.run(self.command(*arguments), text=True, check=False, **more)

    def ok(self, *arguments: str, **more: Any) -> str:
        done = self(*arguments, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout or ""

    def write(self, *args: str, **process: Any) -> dict[str, Any]:
        document = config(*args, **process)
        self.box.write(document, "cli-" + self.box.path.name)
        return document

    def state(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", identifier))
        return found

    def until(self, identifier: str, status: str) -> None:
        deadline = time.monotonic() + 10
        while self.state(identifier)["status"] != status:
            assert time.monotonic() < deadline, f"never {status}: {self.state(identifier)}"

    def background(self, *args: str, identifier: str = "c1", **process: Any) -> str:
        """A container that runs without us. Its streams are not ours: a pipe would never see its end."""
        self.write(*args, **process)
        null = {"capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.ok("run", "--detach", "--bundle", self.bundle, identifier, **null)
        return identifier


@pytest.fixture
def cli(box: Box) -> Iterator[Cli]:
    made = Cli(box)
    yield made
    for entry in json.loads(made.ok("list", "--format", "json")) or ():
        made.ok("delete", "--force", entry["id"])


def test_run_in_the_foreground(cli: Cli) -> None:
    cli.write("sh", "-c", "cat; echo out; echo err >&2; exit 9")
    done = cli("run", "-b", cli.bundle, "c1", stdin=None, input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\nout\n", "err\n")
    assert json.loads(cli.ok("list", "-f", "json")) is None
    assert not [name for name in os.listdir(cli.root) if name != ".seccomp"]


def test_create_start_kill_delete(cli: Cli) -> None:
    cli.write("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
    pid_file = cli.box.path / "pid"
    # The streams stay the container's, so that nobody here may wait for their end.
    null = {"capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    cli.ok("create", "--bundle", cli.bundle, f"--pid-file={pid_file}", "c1", **null)
    state = cli.state("c1")
    assert state["status"] == "created"
    assert state["pid"] == int(pid_file.read_text())
    assert state["bundle"] == cli.bundle
    assert state["ociVersion"] == "1.2.0"
    assert "exists already" in cli("create", "--bundle", cli.bundle, "c1").stderr
    assert cli("delete", "c1").returncode == 1
    cli.ok("start", "c1")
    assert cli.state("c1")["status"] == "running"
    assert cli("start", "c1").returncode == 1
    assert json.loads(cli.ok("ps", "-f", "json", "c1"))[0] == state["pid"]
    assert str(state["pid"]) in cli.ok("ps", "c1")
    row = cli.ok("list").splitlines()[1].split()
    assert row[:4] == ["c1", str(state["pid"]), "running", cli.bundle]
    cli.ok("kill", "c1", "SIGTERM")
    cli.until("c1", "stopped")
    assert "container not running" in cli("kill", "c1", "9").stderr
    cli.ok("delete", "c1")
    assert "does not exist" in cli("state", "c1").stderr
    assert cli("delete", "c1").returncode == 1
    cli.ok("delete", "--force", "c1")


def test_a_missing_program_is_an_error_of_create(cli: Cli) -> None:
    cli.write("nosuch")
    log = cli.box.path / "log.json"
    done = cli("--log", str(log), "--log-format", "json", "create", "--bundle", cli.bundle, "c1")
    assert done.returncode == 1
    entry = json.loads(log.read_text())
    assert entry["level"] == "error"
    assert entry["msg"] == 'exec: "nosuch": executable file not found in $PATH'
    assert entry["msg"] in done.stderr
    assert cli("state", "c1").returncode == 1


def test_exec(cli: Cli) -> None:
    cli.background("sleep", "60")
    done = cli(
        "exec",
        "--cwd",
        "/bin",
        "--env",
        "A=b",
        "--user",
        "1000:5",
        "c1",
        "sh",
        "-c",
        "pwd; echo $A; id -u; id -g; exit 3",
    )
    assert (done.returncode, done.stdout) == (3, "/bin\nb\n1000\n5\n")
    process = config("sh", "-c", "echo from-file; sleep 60")["process"]
    path, pid_file = cli.box.path / "process.json", cli.box.path / "pid"
    path.write_text(json.dumps(process))
    reading, writing = os.pipe()
    cli.ok("exec", "-d", "--pid-file", str(pid_file), "-p", str(path), "c1", capture_output=False, stdout=writing)
    os.close(writing)
    assert os.read(reading, 100) == b"from-file\n"
    os.close(reading)
    assert int(pid_file.read_text()) in json.loads(cli.ok("ps", "-f", "json", "c1"))
    missing = cli("exec", "c1", "nosuch")
    assert missing.returncode == 255
    assert "executable file not found" in missing.stderr
    cli.ok("pause", "c1")
    assert cli.state("c1")["status"] == "paused"
    assert "paused" in cli("exec", "c1", "true").stderr
    cli.ok("resume", "c1")
    cli.ok("delete", "-f", "c1")
    assert not [name for name in os.listdir(cli.root) if name != ".seccomp"]


def test_console_socket(cli: Cli) -> None:
    cli.write(
        "sh", "-c", "stty size; read line; echo got $line", terminal=True, consoleSize={"height": 31, "width": 97}
    )
    assert "console socket" in cli("create", "--bundle", cli.bundle, "c1").stderr
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(cli.box.path / "console"))
    listener.listen()
    cli.ok("create", "--bundle", cli.bundle, "--console-socket", str(cli.box.path / "console"), "c1")
    connection, _ = listener.accept()
    _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    for opened in (connection, listener):
        opened.close()
    cli.ok("start", "c1")
    os.write(master, b"word\n")
    assert b"31 97" in read_terminal(master, b"got word")
    os.close(master)


def test_run_relays_our_terminal(cli: Cli) -> None:
    cli.write("sh", "-c", "tty; read line; echo got $line; exit 5", terminal=True)
    pid, master = pty.fork()
    if pid == 0:
        os.execv(COMMAND, cli.command("run", "--bundle", cli.bundle, "c1"))
    assert b"/dev/pts/0" in read_terminal(master, b"/dev/pts/0")
    os.write(master, b"word\n")
    assert b"got word" in read_terminal(master, b"got word")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(master)


def read_terminal(master: int, until: bytes) -> bytes:
    found = b""
    while until not in found:
        assert select.select([master], [], [], 20)[0], found
        found += os.read(master, 1000)
    return found


def test_signals_are_passed_on(cli: Cli) -> None:
    cli.write("sh", "-c", "trap 'exit 44' USR1; echo ready; while :; do sleep 0.05; done")
    process = subprocess.Popen(cli.command("run", "--bundle", cli.bundle, "c1"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 44
    process.stdout.close()


def test_update_and_events(cli: Cli) -> None:
    cli.background("sleep", "60")
    cli.ok("update", "--memory", "64m", "--pids-limit", "17", "--cpu-quota", "50000", "c1")
    event = json.loads(cli.ok("events", "--stats", "c1"))
    assert event["type"] == "stats"
    assert event["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert event["data"]["pids"] == {"current": 1, "limit": 17}
    assert event["data"]["cpu"]["usage"]["total"] > 0
    cli.ok("update", "-r", "-", "c1", stdin=None, input='{"pids": {"limit": 21}}')
    assert json.loads(cli.ok("events", "--stats", "c1"))["data"]["pids"]["limit"] == 21
    refused = cli("update", "--cpuset-cpus", "none", "c1")
    assert refused.returncode == 1
    assert "cpuset.cpus" in refused.stderr


def test_the_interpreter_a_container_can_see_is_not_the_hosts(cli: Cli) -> None:
    """CVE-2019-5736: /proc/PID/exe of a process that waits for start, as the container's own programs would open it."""
    cli.write("sleep", "60")
    null = {"capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    cli.ok("create", "--bundle", cli.bundle, "c1", **null)
    executable = f"/proc/{cli.state('c1')['pid']}/exe"
    assert not os.path.samefile(executable, os.path.realpath(sys.executable))
    held = os.open(executable, os.O_RDONLY)
    cli.ok("kill", "c1", "KILL")
    cli.until("c1", "stopped")
    try:
        # Nobody executes it any more, so nothing but the seal (or the read-only mount) is in the way.
        with pytest.raises(OSError) as caught:
            os.write(os.open(f"/proc/self/fd/{held}", os.O_WRONLY), b"evil")
        assert caught.value.errno in (errno.EPERM, errno.EROFS)
    finally:
        os.close(held)


def test_preserved_descriptors(cli: Cli) -> None:
    cli.write("sh", "-c", "cat <&3; cat <&4")
    reading, writing = os.pipe()
    os.write(writing, b"handed over")
    os.close(writing)
    # Descriptors 3 and up are the caller's to arrange; 4 is not preserved.
    script = 'exec 3<&"$1" 4</dev/null; shift; exec "$@"'
    command = cli.command("run", "--preserve-fds", "1", "--bundle", cli.bundle, "c1")
    done = subprocess.run(
        ["bash", "-c", script, "-", str(reading), *command], capture_output=True, pass_fds=(reading,), check=False
    )
    os.close(reading)
    assert done.stdout == b"handed over"
    assert b"4: Bad file descriptor" in done.stderr


def test_compiled_seccomp_profile_is_kept_and_holds(cli: Cli) -> None:
    document = cli.write("sh", "-c", "mkdir /x; echo $?", noNewPrivileges=True)
    entry = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    document["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]}
    cli.box.write(document, "c1")
    for _ in range(2):
        done = cli("run", "--bundle", cli.bundle, "c1")
        assert "No space left" in done.stderr
        assert len(os.listdir(f"{cli.root}/.seccomp")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "no such command"),
        (["run", "--bogus", "c1"], "flag provided but not defined: -bogus"),
        (["run"], "other arguments"),
        (["kill", "c1", "NOSUCH"], "unknown signal"),
        (["--systemd-cgroup", "list"], "cgroupfs"),
        (["run", "--pidfd-socket", "/x", "c1"], "--pidfd-socket is not supported"),
        (["run", "../c1"], "invalid container ID"),
        (["list", "--format", "xml"], "invalid format"),
        (["update", "--memory", "lots", "c1"], "does not exist"),
    ],
)
def test_wrong_command_lines_are_refused_by_name(cli: Cli, arguments: list[str], message: str) -> None:
    cli.write("true")
    done = cli(*arguments, cwd=cli.bundle)
    assert done.returncode == 1
    assert message in done.stderr


def test_spec_and_features(cli: Cli, tmp_path: Path) -> None:
    cli.ok("spec", "--bundle", str(tmp_path))
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["process"]["args"] == ["sh"]
    assert "exists" in cli("spec", "--bundle", str(tmp_path)).stderr
    features = json.loads(cli.ok("features"))
    assert features["linux"]["cgroup"]["v2"] is True
    assert {"ro", "rbind", "rro", "idmap"} <= set(features["mountOptions"])
    assert cli.ok("--version").splitlines()[1].startswith("spec: 1.2")
