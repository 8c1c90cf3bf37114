"""Contexts through docker and through wherry: the same lines, the same words, the same files."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cli_process import COMMAND

pytestmark = pytest.mark.skipif(not shutil.which("docker"), reason="the docker client is not installed")

_LINES = """
context ls
context create one --description d --docker host=tcp://h:2376,ca=ca.pem,cert=cert.pem,key=key.pem
context create one
context create x
context create default
context create two --from one
context create three --docker from=two,host=tcp://ignored:1
context create four
context create yy --docker foo=b
context create yy --docker foo
context create yy --docker ca=nosuch
context create yy --docker host=tcp://a:1,ca=key.pem
context create yy --docker host=bad
context create yy --docker host=tcp://a:1,skip-tls-verify=maybe
context create yy --docker from=nosuch
context create yy --from nosuch
context create yy --from two --docker host=tcp://q:1
context inspect one
context inspect two
context inspect three
context inspect one -f '{{.Name}} {{json .Endpoints}} {{json .TLSMaterial}}'
context inspect nosuch
context update nosuch --description x
context update default --description x
context update two --description second
context update two
context inspect two
context update three --docker host=ssh://a --docker skip-tls-verify=true
context inspect three
context update three --docker host=bad
context export one
context export one
context export nosuch
context export one - | head -c 9
context export default default.tar
context export
context import one one.dockercontext
context import five one.dockercontext
context inspect five
context import six -
context import six zipped.zip
context inspect six
context import seven nosuch
context import seven ca.pem
context import default one.dockercontext
context import 'b d' one.dockercontext
context import seven climbs.tar
context import seven other.tar
context import seven deep.tar
context import seven
context ls
context ls -q
context ls --format '{{.Name}} {{.Current}} {{.DockerEndpoint}} {{.Error}} {{.Description}}'
context ls --format json
context ls --format 'table {{.Name}}'
context use one
context show
context ls
context use nosuch
context rm one
context rm -f one
context show
context rm nosuch default four
context rm -f nosuch
context use default
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real certificate: docker reads it."""
    directory = tmp_path_factory.mktemp("certificates")
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"]
        + ["-days", "2", "-subj", "/CN=x"],
        cwd=directory,
        capture_output=True,
        check=True,
    )
    shutil.copy(directory / "cert.pem", directory / "ca.pem")
    return directory


def _prepare(directory: Path, certificates: Path) -> None:
    for path in certificates.iterdir():
        shutil.copy(path, directory)
    for name, member in (("climbs", "../x"), ("other", "other"), ("deep", "tls/docker/../../x")):
        with tarfile.open(directory / f"{name}.tar", "w") as tar:
            info = tarfile.TarInfo(member)
            tar.addfile(info, io.BytesIO())
    with zipfile.ZipFile(directory / "zipped.zip", "w") as archive:
        archive.writestr(
            "meta.json", '{"Name":"z","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://z:1","SkipTLSVerify":false}}}'
        )
        archive.writestr("tls/docker/ca.pem", "x")


def _run(command: list[str], home: Path) -> list[str]:
    shown = []
    for line in _LINES.strip().split("\n"):
        done = subprocess.run(
            ["sh", "-c", 'line=$1; shift; eval "\\"\\$@\\" $line"', "sh", line, *command],
            cwd=home,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        text = f"$ {line}\n{done.stdout}{done.stderr}exit {done.returncode}"
        shown.append(text.replace(str(home), "HOME").replace("wherry", "docker"))
    return shown


def _files(home: Path) -> dict[str, tuple[int, bytes]]:
    found = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    kept = (name for name in found if name.startswith(".docker/contexts/"))
    return {name: (found[name].stat().st_mode, found[name].read_bytes()) for name in kept}


def test_contexts(tmp_path: Path, certificates: Path) -> None:
    homes = {}
    shown = {}
    for name, command in (("docker", ["docker"]), ("wherry", COMMAND)):
        homes[name] = tmp_path / f"{name[0]}-home"
        homes[name].mkdir()
        _prepare(homes[name], certificates)
        shown[name] = _run(command, homes[name])
    for theirs, ours in zip(shown["docker"], shown["wherry"], strict=True):
        assert ours == theirs
    assert _files(homes["wherry"]) == _files(homes["docker"])
