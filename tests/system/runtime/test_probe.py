"""Probes: by a springboard and by the long way a process is the same, and neither leaves anything."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from bundle import DEFAULT_CAPABILITIES, Box, config

from wherry.errors import FailedPrecondition, NotFound
from wherry.kernel.syscalls import ARCH
from wherry.runtime.machine.assembly import ASSEMBLERS
from wherry.runtime.probe import Probed, Prober
from wherry.runtime.waiting import drive

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(ARCH not in ASSEMBLERS, reason="no springboards on this architecture"),
]
LOOK = """
grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp|SigBlk|SigIgn|NSpid)' /proc/self/status | grep -v NSpid
cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj; pwd; ls /proc/self/fd; env | sort
ls -l /proc/self/ns | sed 's/.*-> //'; readlink /proc/self/fd/0; test -w /proc/self/fd/1 && echo own
"""


@pytest.fixture
def prober(box: Box) -> Iterator[Prober]:
    made = Prober(box.runtime)
    yield made
    for identifier in box.made:
        made.forget(identifier)


def probe(prober: Prober, identifier: str, *args: str, seconds: float = 20) -> Probed:
    return drive(prober.probe(identifier, args, seconds))


def by_springboard(prober: Prober, identifier: str, args: Sequence[str]) -> bool:
    return drive(prober._board(identifier, tuple(args))) is not None


def documents() -> Iterator[dict[str, Any]]:
    yield config("sleep", "600")
    names = [*DEFAULT_CAPABILITIES, "CAP_NET_BIND_SERVICE"]
    sets = {"bounding": names, "permitted": names, "effective": names[:2], "inheritable": names, "ambient": names[:1]}
    someone = {"uid": 1000, "gid": 100, "additionalGids": [7, 8], "umask": 0o077}
    yield config("sleep", "600", user=someone, capabilities=sets, noNewPrivileges=True, cwd="/tmp", oomScoreAdj=500)
    limits = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]
    filtered = config("sleep", "600", rlimits=limits, user={"uid": 5, "gid": 5})
    filtered["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    yield filtered


@pytest.mark.parametrize("document", list(documents()), ids=["root", "someone", "filtered"])
def test_it_is_the_same_process_either_way(box: Box, prober: Prober, document: dict[str, Any]) -> None:
    identifier, _ = box.start(document)
    args = ("sh", "-c", LOOK)
    assert by_springboard(prober, identifier, args)
    jumped = probe(prober, identifier, *args)
    prober._boards[identifier] = (args, None)
    forked = probe(prober, identifier, *args)
    assert jumped.status == forked.status == 0
    assert jumped.output.splitlines() == forked.output.splitlines()
    assert "Max open files" in jumped.output


def test_where_no_springboard_serves_the_long_way_is_taken(box: Box, prober: Prober) -> None:
    names = [*DEFAULT_CAPABILITIES, "CAP_SYS_PTRACE"]
    sets = {"bounding": names, "permitted": names, "effective": names}
    identifier, _ = box.start(config("sleep", "600", capabilities=sets))
    assert not by_springboard(prober, identifier, ("echo", "x"))
    assert probe(prober, identifier, "echo", "x")[:2] == (0, "x\n")


def test_failures_are_told_in_words(box: Box, prober: Prober) -> None:
    identifier, _ = box.start(config("sleep", "600"))
    with pytest.raises(NotFound, match=r'exec: "nosuch": executable file not found in \$PATH'):
        probe(prober, identifier, "nosuch")
    assert probe(prober, identifier, "sh", "-c", "kill -9 $$")[0] == 137
    drive(box.runtime.delete(identifier, force=True))
    with pytest.raises((NotFound, FailedPrecondition)):
        probe(prober, identifier, "true")


def test_a_board_of_a_container_that_ended_raises_what_an_exec_raises(box: Box, prober: Prober) -> None:
    identifier, launched = box.start(config("sleep", "600"))
    assert probe(prober, identifier, "true").status == 0
    box.runtime.kill(identifier, 9)
    box.wait(identifier, launched)
    with pytest.raises(FailedPrecondition, match="not running"):
        probe(prober, identifier, "true")


def test_time_and_output_are_bounded_and_nothing_is_left(box: Box, prober: Prober) -> None:
    identifier, _ = box.start(config("sleep", "600"))
    probe(prober, identifier, "true")
    before = len(os.listdir("/proc/self/fd"))
    begun = time.monotonic()
    found = probe(prober, identifier, "sh", "-c", "yes & exec sleep 500", seconds=0.3)
    assert time.monotonic() - begun < 10
    assert found.status is None
    assert found.output == "y\n" * 2048 + "..."
    assert probe(prober, identifier, "sh", "-c", "killall yes; (sleep 300 &) ; echo left", seconds=20)[:2] == (
        0,
        "left\n",
    )
    assert len(os.listdir("/proc/self/fd")) == before
