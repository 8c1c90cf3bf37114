"""The operations of an exec as a springboard's system calls (machine/springboard.py).

Only those that the usual container needs are known here; for any other there is no springboard, and the process is
made by operations in a forked interpreter, as every other exec is. Both do the same in the same order.

Descriptors: 0 to 2 are the process's own, 3 is the pidfd of the container's first process, and what is opened is 4.
"""

from __future__ import annotations

import os
import resource
import struct

from wherry.kernel import processes, syscalls
from wherry.runtime import process, setup
from wherry.runtime.machine.elf import Data, sealed
from wherry.runtime.machine.springboard import MAGIC, SystemCall, build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.kernel.cgroups import Cgroup
    from wherry.runtime.scene import Operation

PIDFD = 3
_OPENED = 4
_AT_FDCWD = -100
_CAPABILITY_VERSION_3 = 0x20080522
_SETS_A_FILTER = 1
# glibc's posix_spawn leaves its own two signals ignored.
_OF_LIBC = (32, 33)
_NUMBERS = {
    "x86_64": {
        "close": 3,
        "write": 1,
        "execve": 59,
        "fchown": 93,
        "umask": 95,
        "chdir": 80,
        "setsid": 112,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
        "prctl": 157,
        "openat": 257,
        "prlimit64": 302,
        "setns": 308,
        "rt_sigaction": 13,
    },
    "aarch64": {
        "close": 57,
        "write": 64,
        "execve": 221,
        "fchown": 55,
        "umask": 166,
        "chdir": 49,
        "setsid": 157,
        "setgroups": 159,
        "setresuid": 147,
        "setresgid": 149,
        "prctl": 167,
        "openat": 56,
        "prlimit64": 261,
        "setns": 268,
        "rt_sigaction": 134,
    },
}


class Board:
    """A springboard into one container. `memory` and `pidfd` are open until `close`."""

    __slots__ = ("magic", "memory", "pidfd")

    def __init__(self, memory: int, pidfd: int, magic: bytes) -> None:
        self.memory = memory
        self.pidfd = pidfd
        self.magic = magic

    def close(self) -> None:
        """Let go."""
        os.close(self.memory)
        os.close(self.pidfd)

    def spawn(self, null: int, output: int, environment: dict[str, str]) -> int:
        """Start a process that jumps; its pid. The caller has set the pid namespace of its children."""
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
            (os.POSIX_SPAWN_DUP2, self.pidfd, PIDFD),
        ]
        # Python ignores some signals, and both that and a mask would outlast exec: process.inherit_signals.
        return os.posix_spawn(
            f"/proc/self/fd/{self.memory}",
            ["wherry-probe"],
            environment,
            file_actions=actions,
            setsigmask=(),
            setsigdef=(13, 25),
        )


def make(operations: Sequence[Operation], group: Cgroup, version: int, pidfd: int) -> Board | None:
    """A springboard that does what `operations` do; None when one of them is not known here. Takes over the pidfd."""
    numbers = _NUMBERS.get(syscalls.ARCH)
    writer = _Writer(numbers) if numbers is not None else None
    if writer is None or not writer.write(operations, group, version):
        os.close(pidfd)
        return None
    magic = os.urandom(MAGIC)
    return Board(sealed("wherry-probe", build(writer.calls, writer.data, magic)), pidfd, magic)


class _Writer:
    """Writes the calls of operations, one kind after the other."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self._numbers = numbers
        self.data = Data()
        self.calls: list[SystemCall] = []

    def call(self, name: str, *arguments: int, may_fail: bool = False, skip: int = 0) -> None:
        """Append one."""
        self.calls.append(SystemCall(self._numbers[name], arguments, may_fail, skip))

    def other(self, number: int, *arguments: int) -> None:
        """Append one by its number."""
        self.calls.append(SystemCall(number, arguments))

    def write(self, operations: Sequence[Operation], group: Cgroup, version: int) -> bool:
        """All of them; False when one is not known. The calls begin with the process being nobody's to look at."""
        self.call("prctl", processes.PR_SET_DUMPABLE, 0)
        for number in _OF_LIBC:
            self.call("rt_sigaction", number, self.data.put(bytes(32)), 0, 8)
        for operation in operations:
            if isinstance(operation, setup.EnterCgroup):
                self._enter(group, version)
            elif isinstance(operation, setup.OomScore):
                self._write_file("/proc/self/oom_score_adj", str(operation.score), may_fail=True)
            elif isinstance(operation, setup.JoinProcess) and not operation.root:
                self.call("setns", PIDFD, operation.flags)
                self.call("close", PIDFD)
            elif isinstance(operation, process.Streams) and not operation.terminal:
                self.call("setsid")
                if operation.uid:
                    self.call("fchown", 1, operation.uid, -1, may_fail=True)
            elif isinstance(operation, process.Rlimits):
                self._limit(operation)
            elif isinstance(operation, process.Keyring):
                self.other(syscalls.NR_KEYCTL, 1, self.data.text(operation.name))
            elif isinstance(operation, process.SealDescriptors):
                self.other(syscalls.NR_CLOSE_RANGE, 3, 0xFFFFFFFF, processes.CLOSE_RANGE_CLOEXEC)
            elif isinstance(operation, process.WorkingDirectory):
                pass  # with the identity: the filter is not to be asked
            elif isinstance(operation, process.Seccomp):
                program = self.data.put(operation.program)
                request = self.data.put(struct.pack("<HxxxxxxQ", len(operation.program) // 8, program))
                self.other(syscalls.NR_SECCOMP, _SETS_A_FILTER, operation.flags, request)
            elif isinstance(operation, process.Identity):
                self._identify(operation)
            elif isinstance(operation, process.Execute):
                self._execute(operation)
            else:
                return False
        return True

    def _enter(self, group: Cgroup, version: int) -> None:
        hierarchies = dict.fromkeys([path for name, path in group.paths.items() if name])
        for path in hierarchies:
            self._write_file(f"{path}/tasks", "0")
        if version == 2:
            self._write_file(f"{group.paths['']}/cgroup.procs", "0")

    def _write_file(self, path: str, text: str, *, may_fail: bool = False) -> None:
        self.call("openat", _AT_FDCWD, self.data.text(path), os.O_WRONLY | os.O_CLOEXEC)
        self.call("write", _OPENED, self.data.text(text), len(text), may_fail=may_fail)
        self.call("close", _OPENED)

    def _limit(self, operation: process.Rlimits) -> None:
        for number, _, soft, hard in operation.limits:
            top = resource.getrlimit(number)[1]
            within = soft if soft != resource.RLIM_INFINITY and soft < top else top
            self.call("prlimit64", 0, number, self._pair(soft, hard), 0, may_fail=True, skip=1)
            self.call("prlimit64", 0, number, self._pair(within, top), 0)

    def _pair(self, soft: int, hard: int) -> int:
        mask = (1 << 64) - 1
        return self.data.put(struct.pack("<QQ", soft & mask, hard & mask))

    def _identify(self, who: process.Identity) -> None:
        self.call("umask", who.umask)
        for bit in who.drops:
            self.call("prctl", processes.PR_CAPBSET_DROP, bit)
        if who.uid:
            self.call("prctl", processes.PR_SET_KEEPCAPS, 1)
        if who.set_groups:
            groups = self.data.put(struct.pack(f"<{len(who.groups)}I", *who.groups))
            self.call("setgroups", len(who.groups), groups)
        self.call("setresgid", who.gid, who.gid, who.gid)
        allowed = who.sets.permitted & who.present
        inheritable = who.sets.inheritable & who.present
        ambient = who.sets.ambient & who.sets.permitted & inheritable
        # As root, who may reach what the user may not; else as the user: process.WorkingDirectory, process.Identity.
        directory = self.data.text(who.cwd)
        begin = len(self.calls)
        self.call("chdir", directory, may_fail=True)
        for late in (True, False):
            self.call("setresuid", who.uid, who.uid, who.uid)
            self.call("prctl", processes.PR_SET_DUMPABLE, 0)
            self._capabilities(allowed, allowed, inheritable)
            if ambient:
                self.call("prctl", processes.PR_CAP_AMBIENT, processes.PR_CAP_AMBIENT_CLEAR_ALL)
                for bit in range(64):
                    if ambient >> bit & 1:
                        self.call("prctl", processes.PR_CAP_AMBIENT, processes.PR_CAP_AMBIENT_RAISE, bit)
            if late:
                length = len(self.calls) - begin
                # It always succeeds, and leaves out the other half.
                self.call("chdir", directory, skip=length - 1)
                self.calls[begin] = self.calls[begin]._replace(skip=length)
        if who.no_new_privs:
            self.call("prctl", processes.PR_SET_NO_NEW_PRIVS, 1)
        if who.sets.effective != who.sets.permitted:
            self._capabilities(who.sets.effective & allowed, allowed, inheritable)

    def _capabilities(self, effective: int, permitted: int, inheritable: int) -> None:
        header = self.data.put(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
        sets = [effective, permitted, inheritable]
        halves = [part & 0xFFFFFFFF for part in sets] + [part >> 32 for part in sets]
        self.other(syscalls.NR_CAPSET, header, self.data.put(struct.pack("<6I", *halves)))

    def _execute(self, operation: process.Execute) -> None:
        name, path = operation.args[0], operation.env.get("PATH", "")
        places = [name] if "/" in name else [f"{where or '.'}/{name}" for where in path.split(":")]
        arguments = self.data.texts(operation.args)
        environment = self.data.texts([f"{name}={value}" for name, value in operation.env.items()])
        for place in places[:-1]:
            self.call("execve", self.data.text(place), arguments, environment, may_fail=True)
        self.call("execve", self.data.text(places[-1]), arguments, environment)
