"""A program that makes the system calls of a list, one after the other, and so becomes another program.

What an interpreter forked for it would do in milliseconds (join namespaces, drop privileges, execute) is known before:
it is written down once, as data, and then costs its system calls alone. The list ends in execve(2). A call that fails
ends the program: it writes what the list's maker chose, and where it failed, to its standard output.
"""

from __future__ import annotations

import struct

from wherry.kernel.syscalls import ARCH
from wherry.runtime.machine.assembly import EQUAL, LESS, assembler_for
from wherry.runtime.machine.elf import Data, executable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    from wherry.runtime.machine.assembly import Assembler
else:
    from wherry.kernel.tuples import NamedTuple

FAILED = 125
"""The exit status after a call that failed."""
MAGIC = 16
"""Bytes that tell a failure's report from what the program became says."""
_CALL = 64  # bytes of one entry


class SystemCall(NamedTuple):
    """One entry. When it succeeds the next `skip` are left out; `may_fail`: its failure is none."""

    number: int
    arguments: tuple[int, ...] = ()
    may_fail: bool = False
    skip: int = 0


def build(calls: Sequence[SystemCall], data: Data, magic: bytes, architecture: str = ARCH) -> bytes:
    """The executable. `data`: what the calls' arguments point to."""
    report = data.put(magic + bytes(16))
    first = data.put(b"".join(_entry(call) for call in calls))

    def write(a: Assembler) -> None:
        a.load_value("s0", "first")
        a.label("next")
        for index in range(6):
            a.load(f"a{index}", "s0", 8 + 8 * index)
        a.load("n", "s0", 0)
        a.call_number()
        a.move("s1", "r")
        a.load("s2", "s0", 56)
        a.branch("s1", LESS, 0, "failed")
        a.bits("s2", 1, 31)  # skip
        a.shift_left("s2", 6)
        a.add("s0", "s2")
        a.label("advance")
        a.add_value("s0", _CALL)
        a.jump("next")
        a.label("failed")
        a.bits("s2", 0, 1)  # may_fail
        a.branch("s2", EQUAL, 1, "advance")
        a.load_value("s3", "report")
        a.store("s0", "s3", MAGIC)
        a.store("s1", "s3", MAGIC + 8)
        a.call("write", 1, "report", MAGIC + 16)
        a.call("exit_group", FAILED)

    return executable(assembler_for(architecture), write, data, {"first": first, "report": report})


def _entry(call: SystemCall) -> bytes:
    arguments = [argument & (1 << 64) - 1 for argument in call.arguments]
    arguments += [0] * (6 - len(arguments))
    return struct.pack("<8Q", call.number, *arguments, call.skip << 1 | call.may_fail)
