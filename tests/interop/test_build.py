"""Builds on the running engine: by docker's classic client and by ours; what must not be, and what must not stay."""
# ruff: noqa: E501

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from daemon import PEER, Daemon, wait_until

pytestmark = pytest.mark.root


class Builder:
    """`wherry build` on one engine, with a context directory of its own."""

    def __init__(self, host: str, directory: Path, image: str) -> None:
        self.host, self.context, self.image = host, directory / "context", image
        self.context.mkdir()
        self._config = str(directory / "config")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wherry.cli.main", "-H", self.host, "--config", self._config, *arguments]

    def run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, done.stderr
        return done

    def write(self, dockerfile: str, **files: str) -> None:
        (self.context / "Dockerfile").write_text(dockerfile.replace("BASE", self.image))
        for name, text in files.items():
            (self.context / name).write_text(text)

    def build(self, *flags: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.run("build", "--progress", "plain", *flags, str(self.context), check=check)

    def id(self, *flags: str) -> str:
        return self.run("build", "-q", *flags, str(self.context)).stdout.strip()

    def everything(self, image: str) -> bytes:
        """All bytes of an image, layers not compressed."""
        return subprocess.run(self.command("save", image), capture_output=True, check=True).stdout


@pytest.fixture
def builder(host: str, tmp_path: Path, image: str) -> Builder:
    if PEER:
        pytest.skip("our own client's way to our own engine")
    return Builder(host, tmp_path, image)


def test_classic_client(docker: Any, host: str, image: str, tmp_path: Path, name: str) -> None:
    """DOCKER_BUILDKIT=0 docker build, with the words tools look for; passes on dockerd too."""
    (tmp_path / "Dockerfile").write_text(
        f'FROM {image}\nARG A=1\nCOPY x /x\nRUN echo out-$A; echo err >&2\nCMD ["x"]\n'
    )
    (tmp_path / "x").write_text("x")
    environment = {**os.environ, "DOCKER_HOST": host, "DOCKER_BUILDKIT": "0"}
    command = [
        "docker",
        "build",
        "-t",
        name,
        "--build-arg",
        "A=7",
        "--iidfile",
        str(tmp_path / "id"),
        str(tmp_path),
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for words in (
        "Step 1/5 : FROM ",
        "Step 3/5 : COPY x /x",
        "out-7\n",
        "Successfully built ",
        f"tagged {name}:latest",
    ):
        assert words in first.stdout
    identity = (tmp_path / "id").read_text()
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert again.stdout.count(" ---> Using cache") >= 2
    assert (tmp_path / "id").read_text() == identity
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nRUN exit 3\n")
    failed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert failed.returncode == 1
    assert "3" in failed.stderr


def test_cache_follows_content_not_time(builder: Builder) -> None:
    builder.write("FROM BASE\nARG A\nCOPY data /data\nRUN date +%N > /when\nENV LATER=1\n", data="one")
    first = builder.id()
    os.utime(builder.context / "data", (1, 1))
    assert builder.id() == first
    builder.write("FROM BASE\nARG A\nCOPY data /data\nRUN date +%N > /when\nENV LATER=2\n")
    assert builder.build().stderr.count("CACHED") == 3
    assert builder.build("--build-arg", "A=1").stderr.count("CACHED") == 2
    (builder.context / "data").write_text("two")
    changed = builder.build("--explain-cache")
    assert "not cached: the files it copies changed" in changed.stderr
    assert builder.id() != first
    assert builder.build("--no-cache").stderr.count("CACHED") == 1


def test_independent_stages_run_at_once_and_unneeded_ones_do_not(builder: Builder) -> None:
    """Each of two stages waits for the other through a cache mount both share."""
    meet = "for i in $(seq 500); do [ -e /m/{} ] && exit 0; usleep 10000; done; exit 1"
    mount = f"--mount=type=cache,target=/m,id=meet-{os.getpid()}"
    builder.write(
        f"FROM BASE AS a\nRUN {mount} touch /m/a; {meet.format('b')}\n"
        f"FROM BASE AS b\nRUN {mount} touch /m/b; {meet.format('a')}\n"
        "FROM BASE AS never\nRUN exit 9\n"
        "FROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
    )
    assert "never" not in builder.build("--no-cache").stderr


def test_equal_steps_of_two_builds_run_once(builder: Builder) -> None:
    mount = f"--mount=type=cache,target=/m,id=once-{os.getpid()}"
    builder.write(f"FROM BASE\nRUN {mount} echo x >> /m/count; usleep 500000; wc -l < /m/count > /count\n")
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(builder.id())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert builder.run("run", "--rm", results[0], "cat", "/count").stdout == "1\n"


def test_secrets_stay_nowhere(builder: Builder, daemon: Daemon) -> None:
    builder.write(
        "FROM BASE\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s,target=/x/y "
        '[ "$S" = "$(cat /x/y)" ] && [ ${#S} = 12 ] && touch /ok\n',
        secret="hunter2-very",
    )
    (builder.context / ".dockerignore").write_text("secret\n")
    flag = f"id=s,src={builder.context}/secret"
    image = builder.id("--secret", flag)
    data = builder.everything(image)
    assert b"hunter2" not in data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        layers = json.loads(tar.extractfile("manifest.json").read())[0]["Layers"]  # type: ignore[union-attr]
        with tarfile.open(fileobj=tar.extractfile(layers[-1])) as top:
            assert not [name for name in top.getnames() if name.startswith("x")]
    assert "hunter2" not in daemon.log_text()
    found = subprocess.run(
        ["grep", "-rl", "hunter2-very", str(daemon.data_root), str(daemon.exec_root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not found.stdout


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM BASE\nCOPY ../outside /x\n", '"/outside": not found'),
        ("FROM BASE\nCOPY escape/passwd /x\n", "not found"),
        ("FROM BASE\nCOPY nothing /x\n", '"/nothing": not found'),
        ("FROM BASE\nCOPY hidden.log /x\n", "the ignore rule '*.log' hides it"),
        ("FROM a AS b\nFROM BASE\nCOPY --from=c /x /x\n", "c"),
        ("FROM BASE AS a\nCOPY --from=b /x /x\nFROM BASE AS b\nCOPY --from=a /x /x\n", "circular dependency detected on stage"),
        ("FROM BASE\nRUN --network=host true\n", "needs the entitlement network.host"),
        ("FROM BASE\nRUN --security=insecure true\n", "needs the entitlement security.insecure"),
        ("FROM BASE\nRUN --mount=type=secret,id=zz,required true\n", "secret zz: not found"),
        ("FROM BASE\nRUN --mount=type=bind,source=../../..,target=/h ls /h/etc/shadow\n", "exit code: 1"),
        ("FROM BASE\nUSER nobody-here\nRUN true\n", "unable to find user nobody-here"),
        ("FROM BASE\nCOPY --chown=nobody-here Dockerfile /\n", "unable to find user nobody-here"),
        ("FROM BASE\nRUN mkdir /d && ln -s /nowhere /d/l\nCOPY Dockerfile /d/l/x\n", "leads through a link to nothing"),
        ("FROM BASE\nRUN [\"/no/such/program\"]\n", "exit code: 127"),
    ],
)  # fmt: skip
def test_refused(builder: Builder, dockerfile: str, message: str) -> None:
    builder.write(dockerfile, **{"hidden.log": "x", ".dockerignore": "*.log\n"})
    (builder.context / "escape").symlink_to("/etc")
    done = builder.build(check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "root:x:0:0:root:/root:/bin/bash" not in done.stderr


def test_context_links_lead_nowhere_outside(builder: Builder) -> None:
    """Copied as links, they point where they point; followed, only inside the context."""
    (builder.context / "passwd").symlink_to("/etc/hostname")
    (builder.context / "dir").mkdir()
    (builder.context / "dir" / "up").symlink_to("../../../../../etc")
    builder.write("FROM BASE\nCOPY dir /dir\nRUN readlink /dir/up > /l\n")
    assert builder.run("run", "--rm", builder.id(), "cat", "/l").stdout == "../../../../../etc\n"


def test_mount_points_replaced_by_links_do_not_delete_outside(builder: Builder, tmp_path: Path) -> None:
    """CVE-2024-23652: the empty mount points are taken away after the step, never what a link in their place names."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "empty").write_text("")
    builder.write(
        f"FROM BASE\nRUN --mount=type=tmpfs,target=/a/b/c true\nRUN --mount=type=tmpfs,target=/q/empty umount /q/empty; "
        f"rm -rf /q; ln -s {victim} /q; true\n"
    )
    image = builder.id()
    assert (victim / "empty").exists()
    assert builder.run("run", "--rm", image, "sh", "-c", "ls -d /a /a/b 2>&1; true").stdout.count("No such") == 2


def test_cache_mounts_are_no_way_out(builder: Builder) -> None:
    """CVE-2024-23651: what a step plants in a cache is never followed when it is mounted for another."""
    mount = f"--mount=type=cache,id=way-{os.getpid()}"
    builder.write(
        f"FROM BASE\nRUN {mount},target=/c rm -rf /c/sub; ln -s / /c/sub\n"
        f"RUN {mount},target=/c,source=sub ls /c | wc -l > /n\n"
    )
    assert builder.run("run", "--rm", builder.id(), "cat", "/n").stdout == "0\n"


def test_a_file_planted_in_the_cache_of_names_is_no_user(builder: Builder) -> None:
    """CVE-2024-23650 was a crash on malformed input, CVE-2025-0495 credentials in traces: bad input is an error here."""
    from wherry.client.dial import Endpoint
    from wherry.client.engine import EngineClient
    from wherry.errors import WherryError

    client = EngineClient(Endpoint(builder.host))
    for query in (
        [("buildargs", "[]")],
        [("labels", "x")],
        [("remote", "\0")],
        [("platform", "x/y/z/a")],
        [("t", "A:b:c")],
    ):
        with pytest.raises(WherryError):
            list(
                client.messages(
                    "POST",
                    "/build",
                    query,
                    _tar({"Dockerfile": "FROM scratch\n"}),
                    [("Content-Type", "application/x-tar")],
                )
            )
    for body in (b"", b"no tar at all" * 100, _tar({})):
        with pytest.raises(WherryError):
            client.open("POST", "/build", (), body, [("Content-Type", "application/x-tar")]).read()
    client.close()


def test_devices_in_a_context_are_refused(builder: Builder) -> None:
    from wherry.client.dial import Endpoint
    from wherry.client.engine import EngineClient

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("Dockerfile", tarfile.REGTYPE), ("disk", tarfile.BLKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, text = kind, b"FROM scratch\nCOPY disk /\n"
            info.size = len(text) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(text))
    client = EngineClient(Endpoint(builder.host))
    head = [("Content-Type", "application/x-tar")]
    messages = list(client.messages("POST", "/build", [], out.getvalue(), head))
    assert "is neither a file, a directory nor a link" in messages[-1]["error"]
    client.close()


def test_a_client_that_goes_away_ends_the_build(builder: Builder, daemon: Daemon) -> None:
    marker = f"{time.time_ns()}"
    builder.write(f"FROM BASE\nRUN echo began; sleep {marker}\n")
    process = subprocess.Popen(
        builder.command("build", "--progress", "plain", str(builder.context)), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    while b"began" not in (line := process.stderr.readline()) or b"echo" in line:
        assert line
    assert _runs(marker)
    process.kill()
    process.wait()
    process.stderr.close()
    wait_until(lambda: not _runs(marker), 10, "the step's command ends")
    wait_until(lambda: not _left(daemon), 10, "nothing of the step is left")


def test_finished_steps_outlive_a_killed_daemon(image: str, tmp_path: Path) -> None:
    """Killed in the middle of a build: nothing of it stays, and the next one begins where it ended."""
    if PEER:
        pytest.skip("an engine of our own is killed")
    from daemon import busybox_tar

    daemon = Daemon()
    daemon.start()
    try:
        builder = Builder(daemon.host, tmp_path, "base")
        builder.run("import", "-c", 'CMD ["sh"]', str(busybox_tar()), "base")
        marker = f"{time.time_ns()}"
        builder.write(f"FROM BASE\nRUN date +%N > /first\nRUN [ -e /m ] || sleep {marker}; true\n")
        process = subprocess.Popen(builder.command("build", "-q", str(builder.context)), stderr=subprocess.DEVNULL)
        wait_until(lambda: _runs(marker), 20, "the second step begins")
        daemon.signal(9)
        process.wait(20)
        daemon.start()
        wait_until(lambda: not _runs(marker), 10, "the half-done step ends")
        assert not _left(daemon)
        builder.write("FROM BASE\nRUN date +%N > /first\nRUN true\n")
        assert builder.build().stderr.count("CACHED") == 2
        builder.run("builder", "prune", "-af")
        images = json.loads(json.dumps(builder.run("images", "-aq").stdout.split()))
        builder.run("rmi", "-f", *images)
        assert not list((daemon.data_root / "snapshots" / "layers").iterdir())
    finally:
        stuck = daemon.remove()
    assert not stuck


def test_registered_triggers_and_named_contexts(builder: Builder, image: str, name: str) -> None:
    builder.write("FROM BASE\nONBUILD COPY data /data\nONBUILD RUN cat /data > /copy\n", data="on")
    builder.id("-t", name)
    builder.write("FROM parent\n")
    found = builder.id("--build-context", f"parent=docker-image://{name}")
    assert builder.run("run", "--rm", found, "cat", "/copy").stdout == "on"


def test_git_and_url_contexts(builder: Builder, tmp_path: Path) -> None:
    import http.server

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, format: str, *arguments: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_address[1]}"
        (tmp_path / "file.txt").write_text("fetched")
        digest = subprocess.run(
            ["sha256sum", tmp_path / "file.txt"], capture_output=True, text=True, check=True
        ).stdout[:64]
        builder.write(f"FROM BASE\nADD --checksum=sha256:{digest} {base}/file.txt /f\nADD {base}/file.txt /d/\n")
        assert builder.run("run", "--rm", builder.id(), "cat", "/f", "/d/file.txt").stdout == "fetchedfetched"
        builder.write(f"FROM BASE\nADD --checksum=sha256:{'0' * 64} {base}/file.txt /f\n")
        assert "digest mismatch" in builder.build(check=False).stderr
        (tmp_path / "context.tar").write_bytes(_tar({"Dockerfile": f"FROM {builder.image}\nCOPY a /a\n", "a": "A"}))
        assert builder.run("build", "-q", f"{base}/context.tar").returncode == 0
    finally:
        server.shutdown()
        server.server_close()


def test_builder_keeps_and_gives_back(builder: Builder) -> None:
    builder.write(f"FROM BASE\nRUN head -c 100000 /dev/urandom > /{time.time_ns()}\n")
    image = builder.id()
    shown = builder.run("builder", "du").stdout
    assert "head -c 100000" in shown
    builder.run("rmi", image)
    assert builder.build().stderr.count("CACHED") == 2
    builder.run("builder", "prune", "-f")
    assert builder.build().stderr.count("CACHED") == 1


def _runs(marker: str) -> bool:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"sleep\0{marker}".encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def _left(daemon: Daemon) -> list[str]:
    found = [
        str(path)
        for name in ("scratch", "incoming", "fetched")
        for path in (daemon.data_root / "build" / name).iterdir()
    ]
    found += [path.name for path in (daemon.exec_root / "bundles").iterdir() if path.name.startswith("build-")]
    return found + [
        path.name for path in (daemon.data_root / "snapshots" / "writable").iterdir() if "build-" in path.name
    ]


def _tar(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()
