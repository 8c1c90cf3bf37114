"""containerd's own shim (io.containerd.runc.v2) drives `wherry-runtime` as its runc."""

import os
from collections.abc import Iterator

import pytest
from peer_shell import RUNTIME, Done, Shell, way_to

pytestmark = pytest.mark.root
CONFIG = """version = 2
root = "{0}/data"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{0}/sock"
"""


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    made = Shell(way_to("containerd"))
    group = f"wherry-containerd-{os.getpid()}"
    name = f"/tmp/{group}"
    try:
        made.make_root(f"{name}/root")
        made(f"echo '{CONFIG.format(name)}' >{name}/config.toml")
        made(f"containerd -c {name}/config.toml >{name}/log 2>&1 & server=$!")
        ready = made(
            f"for i in $(seq 100); do [ -S {name}/sock ] && exit_with=0 && break; sleep 0.1; done; [ $exit_with = 0 ]"
        )
        assert ready.status == 0, made(f"tail -5 {name}/log").output
        made(f'ctr() {{ command ctr -a {name}/sock "$@"; }}')
        runtime = f"--runtime io.containerd.runc.v2 --runc-binary {RUNTIME}"
        made(f'run() {{ ctr run --cgroup /{group}/task {runtime} --rootfs "$@"; }}')
        made(f"root={name}/root")
        yield made
    finally:
        made(f"kill $server; wait $server; cd /; rm -rf {name}; rmdir /sys/fs/cgroup/*/{group} /sys/fs/cgroup/{group}")
        made.close()


def test_run(shell: Shell) -> None:
    assert shell("run --rm $root c1 /bin/sh -c 'echo hello; exit 5'") == Done(5, "hello")


def test_a_missing_program_is_told_in_containerds_words(shell: Shell) -> None:
    done = shell("run --rm $root c1 nosuch")
    assert done.status == 1
    assert 'OCI runtime create failed: exec: "nosuch": executable file not found in $PATH' in done.output


def test_life_of_a_task(shell: Shell) -> None:
    assert shell("run -d --memory-limit 67108864 $root c2 /bin/sleep 60").status == 0
    assert shell("ctr task exec --exec-id e1 c2 /bin/sh -c 'echo inside; exit 6'") == Done(6, "inside")
    assert "executable file not found" in shell("ctr task exec --exec-id e2 c2 nosuch").output
    assert len(shell("ctr task ps c2").output.splitlines()) == 2
    for command, status in (("pause", "PAUSED"), ("resume", "RUNNING")):
        assert shell(f"ctr task {command} c2").status == 0
        assert status in shell("ctr task ls").output
    assert shell("ctr task kill -s 9 c2 && ctr task rm -f c2; ctr container rm c2").status == 0
