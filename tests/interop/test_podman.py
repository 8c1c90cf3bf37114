"""podman runs containers by `wherry-runtime` as it does by runc and crun.

With podman on this host, or among the reference peers (REFERENCE_DIR, a root with a process that holds it).
"""

import os
from collections.abc import Iterator

import pytest
from peer_shell import RUNTIME, Done, Shell, way_to

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    made = Shell(way_to("podman"))
    name = f"wherry-podman-{os.getpid()}"
    try:
        made.make_root(f"/tmp/{name}/root")
        made(
            f"podman() {{ command podman --root /tmp/{name}/storage --runroot /tmp/{name}/run --tmpdir /tmp/{name}/tmp "
            f"--storage-driver vfs --cgroup-manager cgroupfs --events-backend none --runtime {RUNTIME} "
            '"$@"; }; trial() { podman run --rm --network none "$@"; }'
        )
        imported = made("tar c . | podman import - trial:latest")
        assert imported.status == 0, imported.output
        yield made
    finally:
        made(f"podman rm -fa; cd /; rm -rf /tmp/{name}")
        made("rmdir /sys/fs/cgroup/*/libpod_parent/conmon /sys/fs/cgroup/*/libpod_parent /sys/fs/cgroup/libpod_parent")
        made.close()


def test_output_and_exit_status(shell: Shell) -> None:
    done = shell("trial trial sh -c 'echo to-stdout; echo to-stderr >&2; exit 7'")
    assert done.status == 7
    assert set(done.output.splitlines()) == {"to-stdout", "to-stderr"}


def test_standard_input_reaches_the_program(shell: Shell) -> None:
    assert shell("echo given | podman run -i --rm --network none trial cat") == Done(0, "given")


@pytest.mark.parametrize(("program", "status"), [("nosuch", 127), ("/etc", 126)])
def test_programs_that_cannot_run_have_their_status(shell: Shell, program: str, status: int) -> None:
    done = shell(f"trial trial {program}")
    assert done.status == status, done.output
    assert program in done.output


def test_terminal_of_container_and_exec(shell: Shell) -> None:
    assert shell("trial -t trial tty") == Done(0, "/dev/pts/0")
    assert shell("podman run -d --name tty --network none trial sleep 60").status == 0
    assert shell("podman exec -t tty tty") == Done(0, "/dev/pts/0")
    assert shell("podman rm -f -t 0 tty").status == 0


def test_life_of_a_container(shell: Shell) -> None:
    assert shell("podman run -d --name life --network none --memory 64m trial sleep 60").status == 0
    assert shell("podman exec life sh -c 'echo $((6 * 7)); exit 4'") == Done(4, "42")
    assert shell("podman exec life nosuch").status == 127
    assert shell("podman pause life && podman ps -a --format '{{.State}}'") == Done(0, "life\npaused")
    assert shell("podman unpause life && podman ps --format '{{.State}}'") == Done(0, "life\nrunning")
    assert shell("podman update --memory 128m life").status == 0
    assert "134.2MB" in shell("podman stats --no-stream life").output
    assert "sleep 60" in shell("podman top life").output
    assert shell("podman kill life").status == 0
    assert shell("podman wait life").output == "137"
    assert shell("podman rm life").status == 0


def test_security_settings_arrive(shell: Shell) -> None:
    done = shell(
        "trial --read-only --cap-drop all --security-opt no-new-privileges --user 1000:7 --ulimit nofile=100:200 trial "
        "sh -c 'id -u; id -g; cat /proc/self/status; ulimit -n; echo x >/x'"
    )
    assert done.status != 0, "the root file system could be written to"
    for line in ("1000", "7", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "100"):
        assert line in done.output.splitlines(), done.output


def test_user_namespace(shell: Shell) -> None:
    done = shell("trial --uidmap 0:100000:65536 --gidmap 0:100000:65536 trial sh -c 'id -u; cat /proc/self/uid_map'")
    assert done.output.split() == ["0", "0", "100000", "65536"], done.output


def test_memory_limit_ends_the_container(shell: Shell) -> None:
    assert shell("trial --memory 8m trial sh -c 'x=a; while :; do x=$x$x; done'").status == 137
