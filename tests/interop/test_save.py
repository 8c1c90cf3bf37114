"""Images saved by both clients, loaded by dockerd, and back."""

import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from registry_server import layer
from wherry_client import Wherry

from engine_client import Api, DockerCli

pytestmark = pytest.mark.root
_PEER = Path(os.environ.get("REFERENCE_DIR", "/var/tmp/reference"), "run/docker.sock")


@pytest.fixture(params=["docker", "wherry"])
def client(request: pytest.FixtureRequest, host: str, tmp_path: Path) -> DockerCli:
    if request.param == "wherry":
        return Wherry(host, tmp_path)
    made: DockerCli = request.getfixturevalue("docker")
    return made


@pytest.fixture
def peer(tmp_path: Path) -> DockerCli:
    """The docker client on a dockerd."""
    binary = shutil.which("docker")
    if binary is None or not _PEER.is_socket():
        pytest.skip("needs a dockerd and the docker client")
    return DockerCli(binary, f"unix://{_PEER}", tmp_path)


@pytest.fixture
def names(client: DockerCli, image: str, name: str) -> list[str]:
    """Three names of two images."""
    client("tag", image, f"{name}:a")
    client("tag", image, f"{name}:b")
    client("import", "-c", "ENV A=1", "-", f"{name}-c:1", input=layer("file", b"c" * 5000))
    return [f"{name}:a", f"{name}:b", f"{name}-c:1"]


@pytest.fixture
def cleaned(peer: DockerCli, names: list[str]) -> Iterator[None]:
    yield
    peer("rmi", "-f", *names, code=None)


def ids(client: DockerCli, names: list[str]) -> list[str]:
    return client("image", "inspect", "-f", "{{.Id}} {{.Config.Env}}", *names).out.splitlines()


@pytest.mark.usefixtures("cleaned")
def test_there_and_back(client: DockerCli, peer: DockerCli, names: list[str], tmp_path: Path) -> None:
    before = ids(client, names)
    archive, back = tmp_path / "there.tar", tmp_path / "back.tar"
    assert client("save", "-o", str(archive), *names).out == ""
    assert archive.stat().st_mode & 0o777 == 0o600
    loaded = peer("load", "-i", str(archive)).out
    assert sorted(loaded.splitlines()) == sorted(f"Loaded image: {name}" for name in names)
    assert ids(peer, names) == before
    peer("image", "save", "-o", str(back), *names)
    client("rmi", *names)
    assert client("images", "-q", names[2]).out == ""
    loaded = client("image", "load", "-i", str(back)).out
    assert sorted(loaded.splitlines()) == sorted(f"Loaded image: {name}" for name in names)
    assert ids(client, names) == before


def test_what_cannot_be_saved(client: DockerCli, name: str, names: list[str], api: Api, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(b"kept")
    refused = client("save", "-o", str(archive), names[0], f"{name}-none", code=1)
    assert f"No such image: {name}-none" in refused.err
    refused = client("save", "--platform", "linux/s390x", "-o", str(archive), names[0], code=1)
    assert "no suitable export target found for platform linux/s390x" in refused.err
    assert archive.read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir() if "archive" in path.name] == ["archive.tar"]
    for output, reason in ((tmp_path, "cannot write to a directory"), (tmp_path / "x/y", "no such file or directory")):
        assert reason in client("save", "-o", str(output), names[0], code=1).err
    platform = "%7B%22os%22:%22linux%22%7D"
    assert api.request("GET", f"/images/get?names={names[0]}&platform=x").status == 400
    assert api.request("GET", f"/v1.47/images/get?names={names[0]}&platform={platform}").status == 200
    own = client("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", names[0]).out.strip()
    client("save", "--platform", own, "-o", str(archive), names[0])
    with tarfile.open(archive) as tar:
        assert "manifest.json" in tar.getnames()
