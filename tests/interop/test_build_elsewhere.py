"""The same build on two machines: the same digest, and one's image as the other's cache."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_build import Builder

from daemon import PEER, Daemon

pytestmark = pytest.mark.root


def test_digest_and_cache_of_another_machine(docker: Any, daemon: Daemon, image: str, tmp_path: Path) -> None:
    if PEER:
        pytest.skip("our own client's way to our own engine")
    other = Daemon()
    other.start()
    try:
        (tmp_path / "here").mkdir()
        (tmp_path / "there").mkdir()
        here, there = Builder(daemon.host, tmp_path / "here", image), Builder(other.host, tmp_path / "there", image)
        subprocess.run(there.command("load"), input=here.everything(image), check=True, capture_output=True)
        for builder in (here, there):
            builder.write("FROM BASE\nWORKDIR /a/b\nCOPY x /x\nRUN echo y > /y && mkdir /d\n", x="x")
        epoch = "SOURCE_DATE_EPOCH=1700000000"
        first = here.id("--build-arg", epoch, "-t", "elsewhere-epoch")
        assert there.id("--build-arg", epoch) == first
        assert (
            here.run("run", "--rm", first, "stat", "-c", "%Y", "/y", "/d", "/a/b", "/x").stdout.split()
            == ["1700000000"] * 4
        )

        for builder in (here, there):
            builder.write("FROM BASE\nCOPY x /x\nRUN date +%N > /when\nRUN cat /proc/uptime > /up\n", x="x")
        made = here.id("-t", "elsewhere-cache")
        subprocess.run(there.command("load"), input=here.everything("elsewhere-cache"), check=True, capture_output=True)
        assert there.id("--cache-from", "elsewhere-cache") == made
        # What is copied is compared, not believed: nothing of the image fits other files.
        (there.context / "x").write_text("z")
        changed = there.id("--cache-from", "elsewhere-cache")
        assert changed != made
        assert there.run("run", "--rm", changed, "cat", "/x").stdout == "z"
        assert "nosuch is not here" in there.build("--cache-from", "nosuch").stderr
    finally:
        left = other.remove()
    assert not left
