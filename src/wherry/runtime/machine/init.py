"""The program of `--init`: PID 1 that starts the container's, passes signals on to it, and reaps what is orphaned.

Its behaviour is that of tini, which docker uses. It is run from memory as "/sbin/docker-init -- PROGRAM ARGUMENTS", so
that nothing of it is seen in the container's file system.
"""

from __future__ import annotations

from wherry.kernel.processes import PR_SET_NAME
from wherry.kernel.syscalls import ARCH
from wherry.runtime.machine.assembly import EQUAL, LESS, NOT_EQUAL, NOT_LESS, assembler_for
from wherry.runtime.machine.elf import Data, executable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.runtime.machine.assembly import Assembler

NAME = "docker-init"
ARGUMENTS = ("/sbin/docker-init", "--")

_SIGCHLD, _SIGTTIN, _SIGTTOU = 17, 21, 22
# A processor's own complaints are about this program: ILL TRAP ABRT BUS FPE SEGV SYS.
_OWN = (4, 5, 6, 7, 8, 11, 31)
_PASSED = ((1 << 64) - 1) & ~sum(1 << number - 1 for number in _OWN)
_SETMASK = 2
_NOHANG = 1
_TIOCSPGRP = 0x5410
_EACCES = -13


def build(program: str, candidates: Sequence[str], architecture: str = ARCH) -> bytes:
    """The executable that starts the first of `candidates` that can be; `program` is its name in what it says."""
    data = Data()
    failed = f"[FATAL {NAME}] exec {program} failed: "
    missing, forbidden = (f"{failed}{why}\n" for why in ("No such file or directory", "Permission denied"))
    symbols = {
        "candidates": data.texts(tuple(candidates)),
        "missing": data.text(missing),
        "forbidden": data.text(forbidden),
        "name": data.text(NAME),
        "mask": data.put(_PASSED.to_bytes(8, "little")),
        "before": data.put(bytes(8)),
        "status": data.put(bytes(8)),
        "group": data.put(bytes(8)),
        "info": data.put(bytes(128)),
    }

    def write(a: Assembler) -> None:
        _start(a)
        _serve(a)
        _become(a, len(missing.encode()), len(forbidden.encode()))

    return executable(assembler_for(architecture), write, data, symbols)


def _start(a: Assembler) -> None:
    """s0: the program's arguments, s1: its environment, s3: its pid."""
    a.stack("s5")
    a.load("s1", "s5", 0)  # argc; its arguments follow, a zero, and the environment
    a.shift_left("s1", 3)
    a.add("s1", "s5")
    a.add_value("s1", 16)
    a.move("s0", "s5")
    a.add_value("s0", 8 + 8 * len(ARGUMENTS))
    a.call("prctl", PR_SET_NAME, "name")
    a.call("rt_sigprocmask", _SETMASK, "mask", "before", 8)
    a.call("clone", _SIGCHLD, 0, 0, 0, 0)
    a.move("s3", "r")
    a.branch("s3", EQUAL, 0, "child")
    a.branch("s3", NOT_LESS, 0, "wait")
    a.call("exit_group", 125)


def _serve(a: Assembler) -> None:
    a.label("wait")
    a.call("rt_sigtimedwait", "mask", "info", 0, 8)
    a.move("s4", "r")
    a.branch("s4", LESS, 0, "wait")
    a.branch("s4", EQUAL, _SIGCHLD, "reap")
    # The terminal's own; tini ignores them.
    a.branch("s4", EQUAL, _SIGTTIN, "wait")
    a.branch("s4", EQUAL, _SIGTTOU, "wait")
    a.call("kill", "s3", "s4")
    a.jump("wait")

    a.label("reap")
    a.call("wait4", -1, "status", _NOHANG, 0)
    a.move("s4", "r")
    a.branch("s4", LESS, 1, "wait")
    a.branch_equal("s4", "s3", "ended")
    a.jump("reap")

    a.label("ended")
    a.load_value("s5", "status")
    a.load_half("s4", "s5", 0)
    a.move("s2", "s4")
    a.bits("s2", 0, 7)
    a.branch("s2", NOT_EQUAL, 0, "killed")
    a.bits("s4", 8, 8)
    a.call("exit_group", "s4")
    a.label("killed")
    a.add_value("s2", 128)
    a.call("exit_group", "s2")


def _become(a: Assembler, missing: int, forbidden: int) -> None:
    a.label("child")
    # A process group of its own, in the terminal's foreground if there is one.
    a.call("setpgid", 0, 0)
    a.call("getpid")
    a.move("s4", "r")
    a.load_value("s5", "group")
    a.store("s4", "s5", 0)
    a.call("ioctl", 0, _TIOCSPGRP, "group")
    a.call("rt_sigprocmask", _SETMASK, "before", 0, 8)

    # s2: the candidate's place in the table, s4: whether one may not be executed.
    a.load_value("s2", "candidates")
    a.load_value("s4", 0)
    a.label("try")
    a.load("s5", "s2", 0)
    a.branch("s5", EQUAL, 0, "failed")
    a.call("execve", "s5", "s0", "s1")
    a.move("s5", "r")
    a.add_value("s2", 8)
    a.branch("s5", NOT_EQUAL, _EACCES, "try")
    a.load_value("s4", 1)
    a.jump("try")

    a.label("failed")
    a.branch("s4", NOT_EQUAL, 0, "refused")
    a.call("write", 2, "missing", missing)
    a.call("exit_group", 127)
    a.label("refused")
    a.call("write", 2, "forbidden", forbidden)
    a.call("exit_group", 126)
