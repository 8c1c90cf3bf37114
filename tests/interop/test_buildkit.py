"""The real docker build and buildx against the engine: BuildKit's protocols, as their own clients speak them."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import PEER, Daemon, wait_until

pytestmark = pytest.mark.root

_PLUGINS = (
    "/usr/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/var/tmp/reference/root/usr/libexec/docker/cli-plugins",
)


class Client:
    """docker's CLI with the buildx and compose plugins, and a context directory."""

    def __init__(self, host: str, directory: Path, image: str, plugins: str) -> None:
        self.context, self.image = directory / "context", image
        self.context.mkdir()
        self._made: list[str] = []
        config = directory / "config"
        config.mkdir()
        (config / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [plugins]}))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "BUILDX_"))}
        self.environment = {**kept, "DOCKER_HOST": host, "DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain"}

    def __call__(
        self, *arguments: str, code: int | None = 0, stdin: bytes = b"", cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment,
            cwd=cwd,
            timeout=120,
            check=False,
        )
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert code is None or result.returncode == code, result.stderr
        return result

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["docker", *arguments], stderr=subprocess.PIPE, env=self.environment)

    def write(self, dockerfile: str, **files: str) -> None:
        (self.context / "Dockerfile").write_text(dockerfile.replace("BASE", self.image))
        for name, text in files.items():
            (self.context / name).write_text(text)

    def name(self) -> str:
        self._made.append(f"wherry-bk-{uuid.uuid4().hex[:8]}")
        return self._made[-1]

    def build(self, *flags: str, code: int | None = 0, stdin: bytes = b"") -> "subprocess.CompletedProcess[str]":
        return self("build", *flags, str(self.context), code=code, stdin=stdin)

    def cat(self, image: str, *paths: str) -> str:
        return self("run", "--rm", image, "cat", *paths).stdout

    def clean(self) -> None:
        if self._made:
            self("rmi", "-f", *self._made, code=None)


@pytest.fixture(scope="module")
def plugins() -> str:
    if shutil.which("docker") is None:
        pytest.skip("no docker client")
    for path in _PLUGINS:
        if (Path(path) / "docker-buildx").exists():
            return path
    pytest.skip("no buildx plugin")


@pytest.fixture
def client(host: str, tmp_path: Path, image: str, plugins: str) -> Iterator[Client]:
    made = Client(host, tmp_path, image, plugins)
    yield made
    made.clean()


def _transferred(output: str) -> int:
    """The bytes the client says it sent of the context."""
    sizes = re.findall(r"transferring context: ([0-9.]+)(k?B)", output.split("load build context", 1)[1])
    return int(max(float(size) * (1000 if unit == "kB" else 1) for size, unit in sizes))


def test_a_build_and_the_same_again(client: Client, tmp_path: Path) -> None:
    name = client.name()
    client.write(
        "FROM BASE AS one\nRUN echo hello > /x\nFROM BASE\nCOPY a.txt /\nCOPY --from=one /x /\nLABEL by=me",
        **{"a.txt": "a\n", "secret.txt": "no\n", ".dockerignore": "secret.txt\n"},
    )
    files = [str(tmp_path / one) for one in ("iid", "metadata")]
    flags = ("-t", name, "--label", "more=1", "--iidfile", files[0], "--metadata-file", files[1])
    shown = client.build(*flags).stderr
    for line in (
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        f"FROM docker.io/library/{client.image}",
        "[internal] load build context",
        "[one 2/2] RUN echo hello > /x",
        "[stage-1 2/3] COPY a.txt /",
        "[stage-1 3/3] COPY --from=one /x /",
        "exporting to image",
        f"naming to docker.io/library/{name}",
    ):
        assert line in shown, shown
    assert client.cat(name, "/x", "/a.txt") == "hello\na\n"
    found = json.loads(client("inspect", name).stdout)[0]
    assert found["Config"]["Labels"] == {"by": "me", "more": "1"}
    assert Path(files[0]).read_text() == found["Id"]
    metadata = json.loads(Path(files[1]).read_text())
    assert metadata["containerimage.config.digest"] == found["Id"]
    assert metadata["image.name"].startswith(f"docker.io/library/{name}")
    again = client.build(*flags).stderr
    # Of the base dockerd says DONE or CACHED, as it happens.
    assert again.count("CACHED") >= 3, again
    assert json.loads(client("inspect", name).stdout)[0]["Id"] == found["Id"]


def test_only_what_changed_travels(client: Client) -> None:
    client.write("FROM scratch\nCOPY . /", **{f"f{number}": "x" * 5000 for number in range(20)})
    first = _transferred(client.build().stderr)
    unchanged = _transferred(client.build().stderr)
    (client.context / "f7").write_text("y" * 5001)
    changed = _transferred(client.build().stderr)
    assert first > 100_000
    assert unchanged < 5_000
    assert 5_000 < changed < 15_000


def test_only_what_is_copied_travels(client: Client) -> None:
    client.write("FROM scratch\nCOPY small /", small="s", big="b" * 200_000)
    assert _transferred(client.build().stderr) < 10_000


@pytest.mark.parametrize(
    ("dockerfile", "message", "place"),
    [
        (
            "FROM BASE\nCPOY a b\n",
            r"dockerfile parse error on line 2: unknown instruction: CPOY \(did you mean COPY\?\)",
            2,
        ),
        (
            "FROM BASE\n\nRUN echo out; exit 3\n",
            r'process "/bin/sh -c echo out; exit 3" did not complete successfully: exit code: 3',
            3,
        ),
        ("FROM BASE\nCOPY nosuch /\n", r'"/nosuch": not found', 2),
        ("FROM BASE\nCOPY ../../etc/passwd /\n", r'"/etc/passwd": not found', 2),
    ],
)
def test_errors_show_the_lines(client: Client, dockerfile: str, message: str, place: int) -> None:
    client.write(dockerfile)
    failed = client.build(code=1).stderr
    assert re.search(f"^ERROR: .*failed to solve: .*{message}", failed, re.MULTILINE), failed
    assert re.search(rf"^Dockerfile:{place}\n-+\n(.*\n)* +{place} \| >>> ", failed, re.MULTILINE), failed


def test_warnings_are_shown(client: Client) -> None:
    client.write("FROM BASE as x\nMAINTAINER me\n")
    shown = client.build().stderr
    assert "2 warnings found" in shown
    assert "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)" in shown


def test_questions(client: Client) -> None:
    client.write(
        "ARG V=1\nFROM scratch AS base\nFROM scratch AS last\nARG B=x\nRUN --mount=type=secret,id=tok,required true\n"
    )
    assert "Check complete, no warnings found." in client.build("--check").stdout
    assert re.search(r"base.*\n.*last \(default\)", client.build("--call=targets").stdout)
    asked = client.build("--call=outline", "--build-arg", "B=y").stdout
    assert re.search(r"B +y", asked)
    assert re.search(r"tok +true", asked)
    client.write("FROM scratch as base\n")
    assert "FromAsCasing" in client.build("--check", code=1).stdout


def test_secrets_reach_the_step_and_nothing_else(client: Client, tmp_path: Path) -> None:
    name, value = client.name(), uuid.uuid4().hex
    (tmp_path / "token").write_text(value)
    client.write(
        "FROM BASE\nRUN --mount=type=secret,id=tok wc -c < /run/secrets/tok > /n\n"
        "RUN --mount=type=secret,id=tok,env=T echo ${#T} >> /n\n"
    )
    shown = client.build("-t", name, "--secret", f"id=tok,src={tmp_path / 'token'}")
    assert client.cat(name, "/n") == "32\n32\n"
    saved = subprocess.run(["docker", "save", name], capture_output=True, env=client.environment, check=True).stdout
    assert value.encode() not in saved
    assert value not in shown.stderr + client("history", "--no-trunc", name).stdout
    client.write("FROM BASE\nRUN --mount=type=secret,id=nosuch,required true\n")
    assert "secret nosuch: not found" in client.build(code=1).stderr


def test_an_agent_is_forwarded(client: Client, tmp_path: Path) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent")
    socket = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: Path(socket).exists(), 10, "the agent listens")
        client.write("FROM BASE\nRUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK\n")
        client.build("--ssh", f"default={socket}")
        assert "unset ssh forward key default" in client.build("--no-cache", code=1).stderr
    finally:
        agent.terminate()
        agent.wait()


def test_dockerfiles_and_contexts_from_elsewhere(client: Client, tmp_path: Path) -> None:
    name = client.name()
    client.write("FROM BASE\nCOPY a /x\n", a="context")
    outside = tmp_path / "Outside"
    outside.write_text(f"# syntax=docker/dockerfile:1\nFROM {client.image}\nCOPY a /y\n")
    if not PEER:
        # Answered by our own frontend; dockerd would pull it.
        client.build("-t", name, "-f", str(outside))
        assert client.cat(name, "/y") == "context"
    client.build("-t", name, "-f", "-", stdin=f"FROM {client.image}\nCOPY a /z\n".encode())
    assert client.cat(name, "/z") == "context"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(client.context, ".")
    client("build", "-t", name, "-", stdin=packed.getvalue())
    assert client.cat(name, "/x") == "context"
    client("build", "-t", name, "-", stdin=f"FROM {client.image}\nRUN echo alone > /w\n".encode())
    assert client.cat(name, "/w") == "alone\n"
    named = tmp_path / "named"
    named.mkdir()
    (named / "n").write_text("named")
    client.write("FROM BASE\nCOPY --from=other n /n\n")
    client.build("-t", name, "--build-context", f"other={named}")
    assert client.cat(name, "/n") == "named"


def test_options_reach_the_steps(client: Client) -> None:
    name = client.name()
    client.write(
        "FROM BASE AS a\nARG X=1\n"
        "RUN (grep myhost /etc/hosts; ulimit -n; echo $X; df -k /dev/shm | tail -1) > /o\nFROM a\nRUN exit 1\n"
    )
    flags = ("--target", "a", "--build-arg", "X=y", "--add-host", "myhost:1.2.3.4", "--ulimit", "nofile=77:88")
    client.build("-t", name, *flags, "--shm-size", "12m", "--network", "none")
    lines = client.cat(name, "/o").split("\n")
    assert lines[0].split() == ["1.2.3.4", "myhost"]
    assert lines[1:3] == ["77", "y"]
    assert lines[3].split()[1] == "12288"


def test_outputs(client: Client, tmp_path: Path) -> None:
    client.write("FROM scratch\nCOPY a /d/a\nCOPY b /b\n", a="a", b="b" * 300_000)
    (client.context / "b").chmod(0o755)
    client.build("-o", str(tmp_path / "local"))
    assert (tmp_path / "local/d/a").read_text() == "a"
    assert (tmp_path / "local/b").stat().st_mode & 0o777 == 0o755
    client.build("-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert {"b", "d", "d/a"} <= {entry.name for entry in tar}
    if PEER:
        # dockerd's own store writes no OCI archives.
        return
    before = client("images", "-aq", "--no-trunc").stdout
    client.build(
        "-t",
        "wherry-bk-written:1",
        "-o",
        f"type=oci,dest={tmp_path / 'oci.tar'}",
        "-o",
        f"type=docker,dest={tmp_path / 'd.tar'}",
    )
    for path in ("oci.tar", "d.tar"):
        with tarfile.open(tmp_path / path) as tar:
            index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
            (entry,) = index["manifests"]
            assert entry["annotations"]["io.containerd.image.name"] == "docker.io/library/wherry-bk-written:1"
            manifest = json.load(tar.extractfile("blobs/" + entry["digest"].replace(":", "/")))  # type: ignore[arg-type]
            assert len(manifest["layers"]) == 2
    assert client("images", "-aq", "--no-trunc").stdout == before
    refused = client.build("-o", f"type=oci,compression=zstd,dest={tmp_path / 'z.tar'}", code=1).stderr
    assert "the output option compression=zstd is not supported" in refused


def test_bake_with_linked_targets(client: Client, tmp_path: Path) -> None:
    names = [client.name(), client.name()]
    client.write("FROM BASE\nRUN echo base > /base\n")
    definition = {
        "group": {"default": {"targets": ["one", "two"]}},
        "target": {
            "base": {"context": str(client.context)},
            "one": {
                "contexts": {"mine": "target:base"},
                "dockerfile-inline": f"FROM {client.image}\nCOPY --from=mine /base /got\n",
                "tags": [names[0]],
            },
            "two": {
                "contexts": {"mine": "target:base"},
                "dockerfile-inline": "FROM mine\nRUN cat /base > /got\n",
                "tags": [names[1]],
            },
        },
    }
    file = client.context / "bake.json"
    file.write_text(json.dumps(definition))
    client("buildx", "bake", "-f", str(file), cwd=client.context)
    assert [client.cat(name, "/got") for name in names] == ["base\n", "base\n"]


def test_compose_build(client: Client, plugins: str) -> None:
    if not (Path(plugins) / "docker-compose").exists():
        pytest.skip("no compose plugin")
    name = client.name()
    client.write("FROM BASE\nARG X\nRUN echo $X > /x\n")
    file = client.context / "compose.json"
    file.write_text(
        json.dumps({"services": {"s": {"image": name, "build": {"context": ".", "args": {"X": "composed"}}}}})
    )
    client("compose", "-f", str(file), "build", cwd=client.context)
    assert client.cat(name, "/x") == "composed\n"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["cancelled", "vanished"])
def test_a_client_that_leaves_ends_its_build(
    client: Client, how: signal.Signals, request: pytest.FixtureRequest
) -> None:
    mark = f"8{uuid.uuid4().int % 10**6:06}"
    client.write(f"FROM BASE\nRUN echo begun; sleep {mark}\n")
    build = client.start("build", "--no-cache", str(client.context))
    assert build.stderr is not None
    for line in build.stderr:
        if line.rstrip().endswith(b" begun"):
            break
    assert _sleeping(mark)
    for pid in _children(build.pid) or [build.pid]:
        os.kill(pid, how)
    build.kill()
    build.wait()
    build.stderr.close()
    wait_until(lambda: not _sleeping(mark), 20, "the step ends")
    if not PEER:
        daemon: Daemon = request.getfixturevalue("daemon")
        bundles = daemon.exec_root / "bundles"
        wait_until(
            lambda: not [path for path in bundles.iterdir() if path.name.startswith("build-")], 20, "all is gone"
        )
        assert not list((daemon.data_root / "build" / "incoming").iterdir())


def _sleeping(mark: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes() == b"sleep\0" + mark.encode() + b"\0":
                    return True
            except OSError:
                continue
    return False


def _children(pid: int) -> list[int]:
    """docker runs its plugin as a child."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_cache_is_listed_and_pruned(client: Client) -> None:
    if PEER:
        pytest.skip("would prune what others use")
    mark = uuid.uuid4().hex
    client.write(f"FROM BASE\nRUN echo {mark} > /m\n")
    client.build()
    listed = client("buildx", "du", "--verbose").stdout
    assert mark in listed
    identity = re.search(rf"ID:\s+(\S+)\n(?:(?!\n\n)[\s\S])*{mark}", listed)
    assert identity is not None
    client("builder", "prune", "-f", "--filter", f"id={identity[1]}")
    assert mark not in client("buildx", "du", "--verbose").stdout
    assert "CACHED" not in client.build().stderr.partition(f"echo {mark}")[2].partition("exporting")[0]


def test_what_is_not_supported_is_refused_by_name(client: Client) -> None:
    if PEER:
        pytest.skip("what ours does not do yet")
    client.write("FROM scratch\nCOPY a /\n", a="a")
    for flags, words in (
        (["--sbom=true"], "Attestations are not supported"),
        (["--platform", "linux/amd64,linux/arm64"], "several platforms are not supported yet"),
        (["--cache-to", "type=local,dest=x"], "exporting the cache (local) is not supported yet"),
    ):
        assert words in client.build(*flags, code=1).stderr


def test_two_at_once_from_one_directory(client: Client) -> None:
    """They may not have the same copy of the context while one of them still changes it."""
    client.write("FROM scratch\nCOPY . /\n", **{f"f{number}": str(number) for number in range(200)})
    running = [client.start("build", "-q", "--no-cache", str(client.context)) for _ in range(3)]
    for build in running:
        _, error = build.communicate(timeout=60)
        assert build.returncode == 0, error
