"""The docker client against our engine does what it does against dockerd: recorded.txt holds commands and their output.

recorded.txt was written by running this test with WHERRY_RECORD=1 and WHERRY_TEST_PEER at dockerd 28.5. A section is a
test; its commands run one after the other, in a shell, in a directory with a few files. What differs from run to run is
made equal on both sides (`_VARYING`).
"""

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import PEER
from engine_client import Api, DockerCli

pytestmark = pytest.mark.root

_RECORD = Path(__file__).with_name("recorded.txt")
_RECORDING = bool(os.environ.get("WHERRY_RECORD"))
_VARYING = (
    (r"\b[0-9a-f]{64}\b", "ID64"),
    (r"\b[0-9a-f]{12}\b", "ID12"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} UTC", "TIME"),
    (r"(About |Less than )?(an?|\d+) (second|minute)s?( ago)?", "AGE"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"/var/tmp/[^ \"]*", "PATH"),
    (r"\b\d+(\.\d+)?(B|kB|MB|GB)\b", "SIZE"),
    (r"\(\d{10}\)", "(EPOCH)"),
    # Which part of it failed, and whose runtime it is.
    (r"(runc create failed: |error during container init: )", ""),
    (r" {2,}", "  "),
)


def _sections() -> dict[str, list[tuple[str, str]]]:
    """By title: (command, what was recorded of it)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for section in re.split(r"^== ", _RECORD.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, rest = section.partition("\n")
        steps = re.split(r"^\$ ", rest, flags=re.MULTILINE)[1:]
        found[title] = [(line, output) for line, _, output in (step.partition("\n") for step in steps)]
    return found


_SECTIONS = _sections()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What the commands find where they run."""
    (tmp_path / "env").write_text("C=3\n# no line\n")
    (tmp_path / "labels").write_text("from=file\n")
    (tmp_path / "file").write_text("content\n")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").mkdir()
    return tmp_path


@pytest.fixture
def unused(host: str) -> Iterator[str]:
    """A name; every container that begins with it is gone after the test."""
    made = f"rec-{uuid.uuid4().hex[:8]}"
    yield made
    with Api(host) as api:
        for query in (f'{{"name":["{made}"]}}', f'{{"label":["k={made}"]}}'):
            for container in api.get(f"/containers/json?all=1&filters={query}").json:
                api.delete(f"/containers/{container['Id']}?force=1&v=1")


def _normal(text: str, names: dict[str, str]) -> str:
    for variable, value in names.items():
        text = text.replace(value, f"${variable}")
    for pattern, replacement in _VARYING:
        text = re.sub(pattern, replacement, text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


@pytest.mark.parametrize("section", _SECTIONS)
def test_recorded(section: str, docker: DockerCli, image: str, unused: str, directory: Path) -> None:
    names = {"IMAGE": image, "NAME": unused}
    environ = {**docker.environ, **names, "PWD": str(directory)}
    seen = []
    for line, _ in _SECTIONS[section]:
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        output = _normal((done.stdout + done.stderr).decode(errors="replace"), {**names, "PWD": str(directory)})
        seen.append((line, f"{output}exit {done.returncode}\n"))
    if _RECORDING:
        assert PEER, "record on dockerd only"
        _write(section, seen)
        return
    for (line, now), (_, recorded) in zip(seen, _SECTIONS[section], strict=True):
        assert f"$ {line}\n{now}" == f"$ {line}\n{recorded}"


def _write(section: str, seen: list[tuple[str, str]]) -> None:
    _SECTIONS[section] = seen
    text = ""
    for title, steps in _SECTIONS.items():
        text += f"== {title}\n" + "".join(f"$ {line}\n{output}" for line, output in steps)
    _RECORD.write_text(text, encoding="utf-8")
