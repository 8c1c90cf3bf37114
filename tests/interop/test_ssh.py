"""-H ssh:// through a real sshd on the loopback, by our client and docker's; `system dial-stdio` is at the far end.

The server runs in a mount namespace of its own, where its user and its directory are made up.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cli_process import COMMAND, LAUNCHER

from daemon import CACHE, locked, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
_PACKAGES = ("openssh-server", "libwrap0", "libnsl2")


def find_sshd() -> tuple[str, str]:
    """An sshd and where its libraries are: the machine's, or the distribution's package unpacked in the cache."""
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found:
        return found, ""
    tree = CACHE / "sshd"
    with locked(CACHE / "lock"):
        if not tree.exists():
            _unpack(tree)
    libraries = [str(path.parent) for path in tree.rglob("libwrap.so.0")]
    return str(tree / "usr/sbin/sshd"), ":".join(libraries)


def _unpack(tree: Path) -> None:
    scratch = tree.with_name(f"sshd.{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        for command in (["apt-get", "download", *_PACKAGES],):
            subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=120)
        for package in scratch.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, scratch / "tree"], check=True, capture_output=True)
        (scratch / "tree").rename(tree)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"sshd is not installed, and its package cannot be had: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module", params=["docker", "wherry"])
def far(
    request: pytest.FixtureRequest, host: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of a client that reaches ssh://root@127.0.0.1:port; what is `docker` there is the parameter."""
    if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("the ssh client is not installed")
    sshd, libraries = find_sshd()
    directory = tmp_path_factory.mktemp("ssh")
    directory.chmod(0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = directory / "bin"
    programs.mkdir()
    _write_far_end(programs / "docker", request.param)
    _write_server(directory, port, host, programs)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    script = (
        f"mount -t tmpfs none /run && mkdir /run/sshd && mount --bind {directory}/passwd /etc/passwd && "
        f"exec {sshd} -D -e -f {directory}/sshd_config"
    )
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            env={**environ, "LD_LIBRARY_PATH": libraries},
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_until(lambda: server.poll() is not None or _listens(port), 20, "sshd listens")
        assert server.poll() is None, (directory / "log").read_text()
        _write_client(directory, port)
        path = f"{directory}/client:{environ['PATH']}"
        yield {**environ, "PATH": path, "DOCKER_CONFIG": str(directory), "DOCKER_HOST": f"ssh://root@127.0.0.1:{port}"}
    finally:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _write_far_end(path: Path, kind: str) -> None:
    """What `docker system dial-stdio` runs over there."""
    if kind == "wherry":
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -IS -c "{LAUNCHER}" "$@"\n')
    else:
        docker = shutil.which("docker")
        if docker is None:
            pytest.skip("the docker client is not installed")
        path.write_text(f'#!/bin/sh\nexec {docker} "$@"\n')
    path.chmod(0o755)


def _write_server(directory: Path, port: int, host: str, programs: Path) -> None:
    (directory / "passwd").write_text(f"root:x:0:0::{directory}:/bin/sh\nsshd:x:74:74::/run/sshd:/bin/false\n")
    (directory / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/user.pub\nPermitRootLogin prohibit-password\nLogLevel ERROR\n"
        f"SetEnv DOCKER_HOST={host} PATH={programs}:/usr/bin:/bin\n"
    )


def _write_client(directory: Path, port: int) -> None:
    """ssh takes its settings from the user's home by /etc/passwd alone: a wrapper names ours."""
    key = " ".join((directory / "host.pub").read_text().split()[:2])
    (directory / "known").write_text(f"[127.0.0.1]:{port} {key}\n")
    (directory / "ssh_config").write_text(
        f"IdentityFile {directory}/user\nIdentitiesOnly yes\nUserKnownHostsFile {directory}/known\n"
        "StrictHostKeyChecking yes\nLogLevel ERROR\n"
    )
    (directory / "client").mkdir()
    wrapper = directory / "client/ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/ssh_config "$@"\n')
    wrapper.chmod(0o755)


@pytest.mark.parametrize("client", ["wherry", "docker"])
def test_a_container_at_the_far_end(far: dict[str, str], client: str, image: str, name: str) -> None:
    command = COMMAND if client == "wherry" else ["docker"]
    if client == "docker" and shutil.which("docker") is None:
        pytest.skip("the docker client is not installed")
    data = os.urandom(1 << 20)
    done = subprocess.run(
        [*command, "run", "-i", "--rm", "--name", name, image, "cat"],
        input=data,
        capture_output=True,
        env=far,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout == data) == (0, True), done.stderr
