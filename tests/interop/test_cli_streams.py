"""Streams, terminals, signals and exit codes of `wherry run`, `exec`, `attach` and `start`, on a real engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cli_process import COMMAND, environment, run, terminal

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["nosuch"], 127),
        (["/etc"], 126),
        (["sh", "-c", "sleep 9 & kill -9 $!; wait $!"], 137),
    ],
)
def test_exit_code(host: str, image: str, name: str, command: list[str], code: int) -> None:
    assert run(COMMAND, host, ["run", "--rm", "--name", name, image, *command]).returncode == code


def test_engine_errors_are_125(host: str, name: str) -> None:
    done = run(COMMAND, host, ["run", "--pull", "never", "--name", name, "wherry-test-no-such-image"])
    assert done.returncode == 125
    assert b"No such image: wherry-test-no-such-image:latest" in done.stderr


def test_standard_streams_are_kept_apart(host: str, image: str, name: str) -> None:
    done = run(COMMAND, host, ["run", "--rm", "--name", name, image, "sh", "-c", "echo out; echo err >&2"])
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_much_input_both_ways(host: str, image: str, name: str) -> None:
    """More than any buffer holds, while the output is not read until the input went in: nobody may wait for nobody."""
    data = os.urandom(1 << 20) * 8
    done = run(COMMAND, host, ["run", "-i", "--rm", "--name", name, image, "cat"], data)
    assert done.returncode == 0
    assert done.stdout == data


def test_end_of_input_reaches_the_process(host: str, image: str, name: str) -> None:
    done = run(COMMAND, host, ["run", "-i", "--rm", "--name", name, image, "sh", "-c", "cat; echo end"], b"x\n")
    assert done.stdout == b"x\nend\n"


def test_exec(host: str, image: str, name: str) -> None:
    run(COMMAND, host, ["run", "-d", "--name", name, image, "sleep", "600"])
    done = run(
        COMMAND, host, ["exec", "-i", "-e", "A=b", "-w", "/etc", name, "sh", "-c", "cat; echo $A; pwd; exit 3"], b"in\n"
    )
    assert (done.returncode, done.stdout) == (3, b"in\nb\n/etc\n")
    assert run(COMMAND, host, ["exec", name, "nosuch"]).returncode == 127


def test_signal_is_passed_on(host: str, image: str, name: str) -> None:
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [*COMMAND, "run", "--rm", "--name", name, image, "sh", "-c", script],
        stdout=subprocess.PIPE,
        env=environment(host),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"got\n"
    assert process.wait(timeout=20) == 5
    process.stdout.close()


def test_terminal(host: str, image: str, name: str) -> None:
    with terminal(host, ["run", "-it", "--rm", "--name", name, image, "sh"]) as screen:
        screen.expect(b"# ")
        screen.type(b"stty size\n")
        screen.expect(b"31 97")
        screen.resize(40, 120)
        screen.type(b"while [ \"$(stty size)\" != '40 120' ]; do :; done; echo resi''zed\n")
        screen.expect(b"resized")
        screen.type(b"sh -c 'echo sle\"\"eping; exec sleep 600'\n")
        screen.expect(b"sleeping")
        screen.type(b"\x03")  # raw mode: it goes to the container's process, not to us
        screen.expect(b"# ")
        screen.type(b"echo al''ive\n")
        screen.expect(b"alive")
        screen.type(b"exit 9\n")
        assert screen.wait() == 9


def test_detach_and_attach(host: str, image: str, name: str) -> None:
    with terminal(host, ["run", "-it", "--name", name, "--detach-keys", "ctrl-a,x", image, "sh"]) as screen:
        screen.expect(b"# ")
        screen.type(b"\x01x")
        assert screen.wait() == 0
    with terminal(host, ["attach", name]) as screen:
        screen.type(b"echo he''re\n")
        screen.expect(b"here")
        screen.type(b"exit 4\n")
        assert screen.wait() == 4


def test_start_attached(host: str, image: str, name: str) -> None:
    run(COMMAND, host, ["create", "-i", "--name", name, image, "sh", "-c", "cat; exit 6"])
    done = run(COMMAND, host, ["start", "-ai", name], b"hello\n")
    assert (done.returncode, done.stdout) == (6, b"hello\n")


def test_terminal_is_required_for_a_terminal(host: str, image: str) -> None:
    done = run(COMMAND, host, ["run", "-it", "--rm", image, "sh"])
    assert (done.returncode, done.stderr) == (1, b"the input device is not a TTY\n")


def test_logs_follow_until_the_end(host: str, image: str, name: str) -> None:
    run(COMMAND, host, ["run", "-d", "--name", name, image, "sh", "-c", "echo a; echo b >&2; sleep 0.3; echo c"])
    done = run(COMMAND, host, ["logs", "-f", name])
    assert (done.stdout, done.stderr) == (b"a\nc\n", b"b\n")
    assert run(COMMAND, host, ["logs", "--tail", "1", name]).stdout == b"c\n"
