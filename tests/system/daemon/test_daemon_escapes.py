"""Published escapes, tried through the whole daemon by whoever makes images, containers and API requests."""

import io
import os
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from wreck import IMAGE, Wreck, wait_until

from attacks import LOADER_C, OPENER_C, SWAPPER_C, compile_c
from engine_client import unframe
from images import archive, directory, file, link, program

pytestmark = pytest.mark.root


@pytest.fixture
def outside(wreck: Wreck) -> Iterator[Path]:
    """A directory of the host's with a secret, that no container was given."""
    path = wreck.daemon.root / "outside"
    path.mkdir(mode=0o777)
    (path / "secret").write_text("SECRET")
    yield path
    assert (path / "secret").read_text() == "SECRET"
    assert [entry.name for entry in path.iterdir()] == ["secret"]
    (path / "secret").unlink()
    path.rmdir()


def load(wreck: Wreck, data: bytes) -> tuple[int, bytes]:
    answer = wreck.api.request("POST", "/images/load", data, {"Content-Type": "application/x-tar"})
    return answer.status, answer.body


def output(wreck: Wreck, id: str) -> str:
    """What it wrote."""
    answer = wreck.api.get(f"/containers/{id}/logs?stdout=1&stderr=1")
    if "raw" in answer.headers["Content-Type"]:
        return answer.body.decode(errors="replace")
    streams = unframe(answer.body)
    return (streams["stdout"] + streams["stderr"]).decode(errors="replace")


def run(wreck: Wreck, *command: str, **config: object) -> str:
    """The output of a container, or the refusal."""
    made = wreck.api.post("/containers/create", {"Image": IMAGE, "Cmd": list(command), **config})
    if made.status != 201:
        return f"REFUSED {made.message}"
    id = made.json["Id"]
    started = wreck.api.post(f"/containers/{id}/start")
    if started.status != 204:
        return f"REFUSED {started.message}"
    wreck.api.post(f"/containers/{id}/wait")
    return output(wreck, id)


def test_working_directories(wreck: Wreck, outside: Path) -> None:
    """CVE-2024-21626: WORKDIR, exec and links that say /proc/self/fd/N."""
    peek = f"cat ../../../../../../../../../../..{outside}/secret; readlink /proc/self/cwd; ls /proc/self/fd | wc -l"
    layer = [link(f"way{number}", f"/proc/self/fd/{number}") for number in range(3, 40)]
    status, body = load(wreck, archive("ways", [layer], WorkingDir="/way7"))
    assert (status, b"errorDetail" in body) == (200, False), body
    id = wreck.run("sleep", "1000", Image="ways", WorkingDir="/")
    tried = 0
    for number in (3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24, 39):
        for cwd in (f"/proc/self/fd/{number}", f"/way{number}"):
            made = wreck.api.post(
                f"/containers/{id}/exec", {"AttachStdout": True, "Cmd": ["sh", "-c", peek], "WorkingDir": cwd}
            )
            if made.status == 201:
                with wreck.api.hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
                    assert b"SECRET" not in stream.rest()
                tried += 1
            assert "SECRET" not in run(wreck, "sh", "-c", peek, Image="ways", WorkingDir=cwd)
    assert tried
    assert "SECRET" not in run(wreck, "sh", "-c", peek, Image="ways")
    # Nothing but its own streams is open in it (4: what ls and its pipe read).
    for found in (wreck.execute(id, "sh", "-c", "ls /proc/self/fd")[1], run(wreck, "ls", "/proc/self/fd")):
        assert found.split() == ["0", "1", "2", "3"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attack is written for x86_64")
def test_what_forks_containers_cannot_be_written(wreck: Wreck, tmp_path: Path) -> None:
    """CVE-2019-5736: by starting, and by exec, /proc/self/exe and a script of that interpreter."""
    interpreter = Path(os.path.realpath(sys.executable))
    if b"/lib64/ld-linux-x86-64.so.2" not in interpreter.read_bytes():
        pytest.skip("the interpreter has another loader")
    loader = compile_c(tmp_path / "loader", LOADER_C, "-nostdlib", "-static-pie", "-fPIE")
    layer = [
        directory("lib64"),
        program("lib64/ld-linux-x86-64.so.2", loader),
        program("bin/opener", compile_c(tmp_path / "opener", OPENER_C, "-static")),
        link("attack", "/proc/self/exe"),
        file("script", b"#!/proc/self/exe\n"),
    ]
    assert load(wreck, archive("exe", [layer]))[0] == 200
    before, ran = interpreter.stat(), False
    id = wreck.run("sleep", "1000", Image="exe")
    for command in ("/proc/self/exe", "/attack", "/script"):
        for found in (run(wreck, command, Image="exe"), wreck.execute(id, command)[1]):
            # The attack's own program has run and been refused, or what it got to is another file, or it did not run.
            assert "open for writing" not in found, (command, found)
            # Busy it is as long as anyone executes it; what counts is by which mount it was reached.
            assert f"file {before.st_dev} {before.st_ino}: " not in found, (command, found)
            ran = ran or "file " in found
    assert ran
    assert interpreter.stat() == before


def test_copies_while_names_are_exchanged(wreck: Wreck, outside: Path, tmp_path: Path) -> None:
    """CVE-2018-15664, and CVE-2019-14271: nothing of the container's is loaded to make the archive."""
    swapper = compile_c(tmp_path / "swapper", SWAPPER_C, "-static")
    deep = "x/../" * 8  # longer to resolve, easier to hit
    layer = [
        program("bin/swapper", swapper),
        directory("race"),
        directory("race/d"),
        directory("race/x"),
        file("race/d/secret", b"INSIDE"),
        link("race/l", str(outside)),
        file("lib/libnss_files.so.2", b"\x7fELF hostile"),
        link("etc/passwd", f"{outside}/secret"),
    ]
    assert load(wreck, archive("swap", [layer]))[0] == 200
    id = wreck.run("swapper", "/race/d", "/race/l", Image="swap")
    wait_until(lambda: "ready" in output(wreck, id), 10, "it swaps")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as members:
        members.addfile(tarfile.TarInfo("planted"))
    seen = set()
    for path in ["/race/d", "/race/l", f"/race/{deep}d", "/race/d/secret"] * 25:
        query = urllib.parse.urlencode({"path": path})
        got = wreck.api.get(f"/containers/{id}/archive?{query}")
        seen.add(got.status)
        assert b"SECRET" not in got.body
        put = wreck.api.request("PUT", f"/containers/{id}/archive?{query}", data.getvalue())
        seen.add(put.status)
        assert not (outside / "planted").exists()
    assert 200 in seen
    wreck.api.post(f"/containers/{id}/stop?t=0")
    assert b"SECRET" not in wreck.api.get(f"/containers/{id}/archive?path=/etc/passwd").body
    assert b"SECRET" not in wreck.api.get(f"/containers/{id}/export").body
    maps = Path(f"/proc/{wreck.pid('daemon')}/maps").read_text()
    assert str(wreck.daemon.data_root / "snapshots") not in maps
    assert os.readlink(f"/proc/{wreck.pid('daemon')}/root") == "/"


def test_mounts_into_a_volume_that_another_container_changes(wreck: Wreck, outside: Path, tmp_path: Path) -> None:
    """CVE-2021-30465: the destination of one mount lies in another, where a neighbour exchanges it for a link."""
    swapper = compile_c(tmp_path / "swapper", SWAPPER_C, "-static")
    assert load(wreck, archive("swap2", [[program("bin/swapper", swapper)]]))[0] == 200
    shared = ["shared:/shared"]
    make = f"mkdir -p /shared/d/x; ln -s ../../../../../../../..{outside} /shared/l; exec swapper /shared/d /shared/l"
    neighbour = wreck.run("sh", "-c", make, Image="swap2", host={"Binds": shared})
    wait_until(lambda: "ready" in output(wreck, neighbour), 10, "it swaps")
    victim = {"Binds": [*shared, "other:/shared/d/x"], "Tmpfs": {"/shared/l/y": ""}, "NetworkMode": "none"}
    tried = [run(wreck, "grep", "/shared", "/proc/self/mounts", HostConfig=victim) for _ in range(25)]
    assert any("/shared" in text for text in tried)
    assert not [text for text in tried if str(outside) in text and "REFUSED" not in text]


def test_devices_and_proc_of_the_images_making(wreck: Wreck) -> None:
    """CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: what masks, consoles and writes to /proc rely on is ours."""
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_bytes()
    devices = ["null", "console", "pts/ptmx", "ptmx", "zero", "full", "tty", "urandom"]
    layer = [directory("dev"), directory("dev/pts")]
    layer += [link(f"dev/{name}", "/proc/sys/kernel/core_pattern") for name in devices]
    assert load(wreck, archive("dev", [layer]))[0] == 200
    attempt = (
        "head -c 100 /proc/timer_list /proc/keys; echo x >/proc/sys/kernel/core_pattern; echo x >/dev/null; "
        "cat /proc/sysrq-trigger >/dev/null && echo READ; echo 1 >/proc/sysrq-trigger && echo WRITTEN; "
        "stat -c %t:%T /dev/null; readlink /dev/null"
    )
    for tty in (False, True):
        id = wreck.run("sh", "-c", attempt, Image="dev", Tty=tty)
        wreck.api.post(f"/containers/{id}/wait")
        text = wreck.api.get(f"/containers/{id}/logs?stdout=1&stderr=1").body.decode(errors="replace")
        assert "1:3" in text
        assert "WRITTEN" not in text
        assert "Timer List" not in text
    # The same by a volume over /dev, which another container has filled.
    fill = "; ".join(f"ln -s /proc/sys/kernel/core_pattern /v/{name}" for name in ("null", "console", "ptmx", "zero"))
    run(wreck, "sh", "-c", f"{fill}; mkdir /v/pts", HostConfig={"Binds": ["dev:/v"]})
    look = "grep core_pattern /proc/self/mountinfo && echo MOUNTED; head -c 100 /proc/timer_list"
    for tty in (False, True):
        text = run(wreck, "sh", "-c", look, HostConfig={"Binds": ["dev:/dev"]}, Tty=tty)
        assert "MOUNTED" not in text
        assert "Timer List" not in text
    # And what would stand between us and the kernel's /proc.
    hostile = archive("procs", [[link("fake", "/proc")]])
    assert load(wreck, hostile)[0] == 200
    for target in ("/proc/sys", "/proc/self/attr", "/proc/sys/net/ipv4", "/fake/sys"):
        host = {"Binds": [f"fake:{target}"], "Sysctls": {"net.ipv4.ip_forward": "0"}}
        assert run(wreck, "true", Image="procs", HostConfig=host).startswith("REFUSED"), target
    # A /proc that is not the kernel's: nothing of ours is written to it.
    run(wreck, "mkdir", "-p", "/v/sys/net/ipv4", "/v/self/attr", HostConfig={"Binds": ["proc:/v"]})
    run(wreck, "sh", "-c", "> /v/sys/net/ipv4/ip_forward; > /v/self/attr/exec", HostConfig={"Binds": ["proc:/v"]})
    run(wreck, "true", HostConfig={"Binds": ["proc:/proc"], "Sysctls": {"net.ipv4.ip_forward": "0"}})
    assert run(wreck, "cat", "/v/sys/net/ipv4/ip_forward", "/v/self/attr/exec", HostConfig={"Binds": ["proc:/v"]}) == ""
    for sysctl in ("kernel.core_pattern", "net/../kernel/core_pattern", "net.ipv4/../../kernel/core_pattern"):
        assert run(wreck, "true", HostConfig={"Sysctls": {sysctl: "|/x"}}).startswith("REFUSED"), sysctl
    assert pattern.read_bytes() == before


def test_release_agent(wreck: Wreck) -> None:
    """CVE-2022-0492, with what a default container, and one of another user, may try."""
    attempt = (
        "for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent; do echo /x >$f && echo ESCAPED; done; "
        "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x && echo MADE; echo 1 >/sys/fs/cgroup/pids/pids.max && echo WRITTEN; "
        "mkdir -p /tmp/c; mount -t cgroup -o memory none /tmp/c && echo MOUNTED; "
        "unshare -Ur true && echo NESTED; unshare -UrmC mount -t cgroup -o rdma none /tmp/c && echo NESTED; echo done"
    )
    for user in ("", "1000"):
        id = wreck.run("sh", "-c", f"({attempt}) 2>/dev/null", User=user)
        wreck.api.post(f"/containers/{id}/wait")
        assert output(wreck, id) == "done\n"


def test_capabilities(wreck: Wreck) -> None:
    """CVE-2022-24769: nothing is inheritable, for whoever runs and in whatever way."""
    for user in ("", "1000"):
        id = wreck.run("sleep", "1000", User=user, host={"CapAdd": ["NET_ADMIN"]})
        status = wreck.execute(id, "cat", "/proc/1/status", "/proc/self/status")[1]
        lines = [line.split() for line in status.splitlines() if line.startswith("Cap")]
        assert [value for name, value in lines if name == "CapInh:"] == ["0" * 16] * 2
        ambient = [value for name, value in lines if name in ("CapAmb:", *(("CapEff:",) if user else ()))]
        assert set(ambient) == {"0" * 16}


def test_sockets_of_ours(wreck: Wreck) -> None:
    """CVE-2020-15257: a container in the host's network namespace finds no abstract socket of ours."""
    id = wreck.run("sleep", "1000", host={"NetworkMode": "host"})
    sockets = wreck.execute(id, "cat", "/proc/net/unix")[1]
    assert str(wreck.daemon.exec_root / "monitor.sock") in sockets
    assert not [line for line in sockets.splitlines() if "@" in line and "wherry" in line.lower()]
    inodes = set()
    for pid in wreck.daemon.processes():
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(fd)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ours = [line.split() for line in sockets.splitlines()[1:] if line.split()[6] in inodes]
    assert ours
    assert not [entry for entry in ours if len(entry) > 7 and entry[7].startswith("@")]
    for name in ("monitor.sock", "logger.sock"):
        assert (wreck.daemon.exec_root / name).stat().st_mode & 0o077 == 0


def _layers(outside: str) -> dict[str, list[list[object]]]:
    up = "../" * 20
    return {
        "a name upwards": [[file(f"{up}{outside}/planted", b"x")]],
        "an absolute name": [[file(f"{outside}/planted2", b"x")]],
        "through a link": [[link("l", outside), file("l/planted", b"x")]],
        "through a link of a layer below": [[link("l", outside)], [file("l/planted", b"x")]],
        "through a relative link": [[link("l", up + outside)], [file("l/planted", b"x")]],
        "a hard link to the host's": [[link("stolen", f"{outside}/secret", tarfile.LNKTYPE)]],
        "a hard link upwards": [[link("stolen", f"{up}{outside}/secret", tarfile.LNKTYPE)]],
        "a hard link through a link": [[link("l", outside)], [link("stolen", "l/secret", tarfile.LNKTYPE)]],
        "a whiteout through a link": [[link("l", outside)], [file("l/.wh.secret")]],
        "an opaque mark through a link": [[link("l", outside)], [file("l/.wh..wh..opq")]],
        "a whiteout of what is above": [[file(".wh...")]],
        "a whiteout of itself": [[file(".wh..")]],
        "a whiteout without a name": [[file(".wh.")]],
        "a whiteout with a way": [[file(f"a/.wh.{up}{outside}/secret")]],
    }


@pytest.mark.parametrize("name", _layers(""))
def test_layers(wreck: Wreck, outside: Path, name: str) -> None:
    layers = _layers(str(outside))[name]
    status, body = load(wreck, archive("layers", layers))  # type: ignore[arg-type]
    refused = status != 200 or b"errorDetail" in body
    if not refused:
        assert "SECRET" not in run(wreck, "cat", "/stolen", f"{outside}/secret", Image="layers")
        # Still whole: a whiteout took nothing that was not meant.
        assert run(wreck, "ls", "-d", "/bin/sh", "/etc/passwd", Image="layers") == "/bin/sh\n/etc/passwd\n"
        wreck.api.delete("/images/layers?force=1")
    assert not [path.name for path in (wreck.daemon.data_root / "snapshots" / "incoming").iterdir()]


def test_archives_whose_parts_are_links(wreck: Wreck, outside: Path) -> None:
    """`docker load` reads what its manifest names: a link, or a name upwards, must not make it read the host's."""
    import json

    stolen = f"{outside}/secret"
    for path in ("layer.tar", "../" * 20 + stolen, stolen, "config.json"):
        manifest = [{"Config": path, "RepoTags": ["stolen:latest"], "Layers": [path]}]
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            from images import tar

            data = tar(
                [
                    link("layer.tar", stolen, kind),
                    link("config.json", stolen, kind),
                    file("manifest.json", json.dumps(manifest).encode()),
                ]
            )
            status, body = load(wreck, data)
            assert status != 200 or b"errorDetail" in body
            assert b"SECRET" not in body
