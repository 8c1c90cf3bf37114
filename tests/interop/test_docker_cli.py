"""The real docker client."""

import json
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import wait_until
from engine_client import Api, DockerCli


def test_version_and_info(docker: DockerCli) -> None:
    assert "Server:" in docker("version").out
    info = json.loads(docker("info", "--format", "{{json .}}").out)
    assert info["OSType"] == "linux"
    assert not info.get("ServerErrors")


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["echo", "hi"], 0, "hi\n", ""),
        (["sh", "-c", "echo o; echo e >&2; exit 3"], 3, "o\n", "e\n"),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, "", "Killed\n"),
        (["nosuch"], 127, "", r'.*exec: "nosuch": executable file not found in \$PATH.*'),
        (["/etc/passwd"], 126, "", ".*permission denied.*"),
    ],
)
def test_run_in_the_foreground(
    docker: DockerCli, image: str, name: str, arguments: list[str], code: int, out: str, err: str
) -> None:
    ran = docker("run", "--rm", "--name", name, image, *arguments, code=code)
    assert ran.out == out
    assert re.fullmatch(err, ran.err, re.DOTALL), ran.err
    # Removal is finished when the client ends.
    assert docker("ps", "-aq", "--filter", f"name={name}").out == ""


def test_run_refused_by_the_engine(docker: DockerCli, image: str) -> None:
    ran = docker("run", "--rm", "--memory", "1", image, "true", code=125)
    assert "inimum memory limit" in ran.err
    ran = docker("run", "--rm", "--pull", "never", "wt-nosuch", code=125)
    assert "No such image: wt-nosuch:latest" in ran.err


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every user may enter: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="wt-", dir="/var/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_run_options_reach_the_container(docker: DockerCli, image: str, name: str, public_directory: Path) -> None:
    tmp_path = public_directory
    script = (
        "hostname; id -u; id -g; pwd; echo $A; cat /b/f; touch /b/x 2>/dev/null || echo ro; ulimit -n; df /t | tail -1"
    )
    (tmp_path / "f").write_text("bound\n")
    bind = f"{tmp_path}:/b:ro"
    flags = ["--hostname", "hh", "--user", "7:8", "--workdir", "/tmp", "-e", "A=1 2", "--ulimit", "nofile=99:99"]
    if not _sees(docker, image, tmp_path):
        pytest.skip("the engine does not see this machine's files")
    ran = docker("run", "--rm", *flags, "-v", bind, "--tmpfs", "/t", image, "sh", "-c", script)
    lines = ran.out.splitlines()
    assert lines[:8] == ["hh", "7", "8", "/tmp", "1 2", "bound", "ro", "99"]
    assert lines[8].startswith("tmpfs")


def _sees(docker: DockerCli, image: str, path: Path) -> bool:
    return docker("run", "--rm", "--mount", f"type=bind,src={path},dst=/x", image, "true", code=None).code == 0


def test_input_from_a_file(docker: DockerCli, image: str) -> None:
    data = b"".join(b"%d\n" % number for number in range(300_000))
    ran = docker("run", "--rm", "-i", image, "sh", "-c", "cat | md5sum; echo done", input=data)
    import hashlib

    assert ran.out.splitlines() == [f"{hashlib.md5(data).hexdigest()}  -", "done"]
    ran = docker("run", "--rm", "-i", image, "cat", input=data)
    assert ran.out.encode() == data


def test_a_client_that_types_on_after_the_end(docker: DockerCli, image: str) -> None:
    process = docker.spawn("run", "--rm", "-i", image, "true")
    assert process.stdin is not None
    assert process.wait(30) == 0
    process.communicate()


def test_a_terminal(docker: DockerCli, image: str, name: str) -> None:
    with docker.terminal("run", "--rm", "-it", "--name", name, image) as terminal:
        terminal.expect("/ # ")
        terminal.send("tty; stty size\n")
        terminal.expect("/dev/pts/0\r\n")
        terminal.expect("40 120")
        terminal.send("sleep 100\n")
        terminal.expect("sleep 100")
        time.sleep(0.2)
        terminal.send("\x03")
        terminal.expect("/ # ")
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


def test_leaving_a_terminal_and_coming_back(docker: DockerCli, image: str, name: str) -> None:
    with docker.terminal("run", "-it", "--name", name, image) as terminal:
        terminal.expect("/ # ")
        terminal.send("\x10\x11")
        assert terminal.wait() == 0
    assert docker("inspect", "-f", "{{.State.Running}}", name).out == "true\n"
    with docker.terminal("attach", name) as terminal:
        terminal.send("echo ba''ck\n")
        terminal.expect("back\r\n")
        terminal.send("exit 4\n")
        assert terminal.wait() == 4


def test_detached_life_cycle(docker: DockerCli, image: str, name: str) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    id = docker("run", "-d", "--name", name, "--label", f"l={name}", image, "sh", "-c", script).out.strip()
    assert re.fullmatch("[0-9a-f]{64}", id)
    follower = docker.spawn("logs", "-f", name)
    form = "{{.ID}} {{.Names}} {{.Image}} {{.Status}}"
    shown = docker("ps", "--filter", f"label=l={name}", "--format", form).out
    assert re.fullmatch(rf"{id[:12]} {name} {image} Up .*\n", shown), shown
    for verb, status in (("pause", "paused"), ("unpause", "running")):
        assert docker(verb, name).out.strip() == name
        assert docker("inspect", "-f", "{{.State.Status}}", name).out.strip() == status
    docker("rename", name, f"{name}-new")
    assert docker("top", f"{name}-new").out.splitlines()[0].split()[:2] == ["UID", "PID"]
    docker("stop", f"{name}-new")
    out, _ = follower.communicate(timeout=20)
    assert out == b"up\nbye\n"
    assert docker("logs", name + "-new").out == "up\nbye\n"
    assert docker("logs", "--tail", "1", name + "-new").out == "bye\n"
    state = json.loads(docker("inspect", "-f", "{{json .State}}", id).out)
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 0, 0)
    docker("start", id)
    docker("restart", "-t", "2", id)
    # A signal before the trap is set would be lost.
    wait_until(lambda: docker("logs", id).out.count("up\n") == 3, 20, "it is up for the third time")
    docker("kill", "-s", "TERM", id)
    assert docker("wait", id).out == "0\n"
    assert "is not running" in docker("kill", id, code=1).err
    docker("rm", id)
    assert "No such container" in docker("rm", id, code=1).err


def test_stop_kills_what_does_not_listen(docker: DockerCli, image: str, name: str) -> None:
    docker("run", "-d", "--name", name, image, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    start = time.monotonic()
    docker("stop", "-t", "1", name)
    assert 0.9 < time.monotonic() - start < 8
    assert docker("inspect", "-f", "{{.State.ExitCode}}", name).out == "137\n"


def test_exec(docker: DockerCli, image: str, name: str) -> None:
    docker("run", "-d", "--name", name, image, "sleep", "1000")
    assert docker("exec", name, "echo", "hi").out == "hi\n"
    assert docker("exec", "-i", name, "cat", input="piped").out == "piped"
    assert docker("exec", "-u", "nobody", "-w", "/tmp", "-e", "X=y", name, "sh", "-c", "id -un; pwd; echo $X").out == (
        "nobody\n/tmp\ny\n"
    )
    docker("exec", name, "sh", "-c", "exit 6", code=6)
    docker("exec", name, "nosuch", code=127)
    docker("exec", "-d", name, "touch", "/tmp/detached")
    with docker.terminal("exec", "-it", name, "sh") as terminal:
        terminal.expect("# ")
        terminal.send("stty size; until [ -e /tmp/detached ]; do :; done; exit 5\n")
        terminal.expect("40 120")
        assert terminal.wait() == 5


def test_copying(docker: DockerCli, image: str, name: str, tmp_path: Path) -> None:
    docker("create", "--name", name, image, "sh", "-c", "cat /in/sub/f; ls -ln /in/sub/f; echo made > /out")
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "sub/f").write_text("content\n")
    (source / "sub/f").chmod(0o751)
    docker("cp", str(source), f"{name}:/in")
    shown = docker("start", "-a", name).out
    assert shown.startswith("content\n-rwxr-x--x")
    docker("cp", f"{name}:/out", str(tmp_path / "got"))
    assert (tmp_path / "got").read_text() == "made\n"
    docker("cp", f"{name}:/in/sub", str(tmp_path))
    assert (tmp_path / "sub/f").read_text() == "content\n"
    assert "A /in/sub/f" in docker("diff", name).out
    assert "Could not find the file /nope" in docker("cp", f"{name}:/nope", str(tmp_path), code=1).err


def test_published_ports(docker: DockerCli, image: str, name: str, address: str) -> None:
    server = "mkdir /w; echo served > /w/index.html; httpd -f -p 80 -h /w"
    docker("run", "-d", "--name", name, "-p", "80", image, "sh", "-c", server)
    shown = docker("port", name, "80").out.splitlines()
    port = next(line for line in shown if line.startswith("0.0.0.0:")).partition(":")[2]
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}:{port}/", timeout=5) as answer:
                assert answer.read() == b"served\n"
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert f"0.0.0.0:{port}->80/tcp" in docker("ps", "--filter", f"name={name}", "--format", "{{.Ports}}").out


def test_networks_of_containers(docker: DockerCli, image: str, name: str) -> None:
    docker("run", "-d", "--name", name, image, "sleep", "1000")
    ip = docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name).out.strip()
    gateway = docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", name).out.strip()
    assert docker("exec", name, "ping", "-c", "1", "-W", "5", gateway).code == 0
    assert docker("run", "--rm", image, "ping", "-c", "1", "-W", "5", ip).code == 0
    shared = docker(
        "run", "--rm", "--network", f"container:{name}", image, "ip", "-4", "-o", "addr", "show", "eth0"
    ).out
    assert f"inet {ip}/" in shared
    alone = docker("run", "--rm", "--network", "none", image, "ip", "-o", "link").out
    assert [line.split(": ")[1].partition("@")[0] for line in alone.splitlines()] == ["lo"]
    assert ip in docker("exec", name, "cat", "/etc/hosts").out


def test_volumes(docker: DockerCli, image: str, name: str) -> None:
    docker("volume", "create", "--label", "a=b", name)
    docker("run", "--rm", "-v", f"{name}:/v", image, "sh", "-c", "echo kept > /v/f")
    assert docker("run", "--rm", "-v", f"{name}:/v:ro", image, "cat", "/v/f").out == "kept\n"
    docker("create", "--name", name, "-v", f"{name}:/v", image)
    assert "volume is in use" in docker("volume", "rm", name, code=1).err
    docker("rm", name)
    assert json.loads(docker("volume", "inspect", name).out)[0]["Labels"] == {"a": "b"}
    docker("volume", "rm", name)
    assert "no such volume" in docker("volume", "inspect", name, code=1).err


def test_images(docker: DockerCli, image: str, name: str, tmp_path: Path) -> None:
    docker("tag", image, f"{name}:1")
    shown = docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").out
    id = docker("inspect", "-f", "{{.Id}}", image).out.strip()
    assert f"{name}:1 {id.removeprefix('sha256:')[:12]}" in shown
    docker("create", "--name", name, image)
    docker("export", "-o", str(tmp_path / "tar"), name)
    made = docker("import", "--change", 'CMD ["echo","imported"]', str(tmp_path / "tar"), f"{name}:2").out.strip()
    assert docker("run", "--rm", f"{name}:2").out == "imported\n"
    assert "Imported from" in docker("history", f"{name}:2").out
    assert f"Untagged: {name}:2" in docker("rmi", f"{name}:2").out
    assert "No such image" in docker("inspect", "--type", "image", made, code=1).err
    assert docker("rmi", f"{name}:1").out == f"Untagged: {name}:1\n"
    docker("image", "inspect", image)


def test_events_as_they_happen(docker: DockerCli, api: Api, image: str, name: str) -> None:
    watcher = docker.spawn("events", "--filter", f"container={name}", "--format", "{{.Action}}")
    assert watcher.stdout is not None
    # The client gives no sign that it listens: make things happen until it has seen one.
    import select

    while not select.select([watcher.stdout], [], [], 0.05)[0]:
        docker("run", "--rm", "--name", name, image, "true")
    assert watcher.stdout.readline().strip() in (b"create", b"attach", b"start", b"die", b"destroy")
    watcher.kill()
    watcher.communicate()


def test_inspect_has_the_fields_clients_read(docker: DockerCli, image: str, name: str) -> None:
    docker("run", "-d", "--name", name, "-p", "127.0.0.1::80", "-e", "A=b", "--memory", "64m", image, "sleep", "1000")
    found = json.loads(docker("inspect", name).out)[0]
    assert found["Name"] == f"/{name}"
    assert found["Config"]["Image"] == image
    assert "A=b" in found["Config"]["Env"]
    assert found["Config"]["Cmd"] == ["sleep", "1000"]
    assert found["Path"] == "sleep"
    assert found["Args"] == ["1000"]
    assert found["State"]["Status"] == "running"
    assert found["State"]["Pid"] > 0
    assert found["HostConfig"]["Memory"] == 64 << 20
    assert found["HostConfig"]["NetworkMode"] in ("bridge", "default")
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert found["HostConfig"]["LogConfig"]["Type"] == "json-file"
    assert found["NetworkSettings"]["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1"
    assert found["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert found["Image"].startswith("sha256:")
    assert found["LogPath"].endswith("-json.log")
    assert found["Mounts"] == []
    assert found["RestartCount"] == 0
    assert found["Platform"] == "linux"


def test_pruning(docker: DockerCli, image: str, name: str) -> None:
    docker("run", "--name", name, "--label", f"p={name}", image, "true")
    out = docker("container", "prune", "-f", "--filter", f"label=p={name}").out
    assert "Deleted Containers:" in out
    assert docker("ps", "-aq", "--filter", f"name={name}").out == ""
