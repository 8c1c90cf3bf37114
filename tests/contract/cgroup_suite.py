"""The contract of wherry.kernel.cgroups.Cgroup as plain functions, for this host's layout whatever it is.

No pytest in here: the same file runs under pytest on the host (test_cgroup.py) and by itself in a virtual machine with
another layout (tests/system/test_cgroup_v2_vm.py). Run as a program it prints one JSON line per check.
"""

import ctypes
import errno
import mmap
import os
import select
import signal
import struct
import sys
import time
import traceback

from wherry.kernel.cgroups import DEFAULT_DEVICES, Cgroup, cgroup, layout

DENY_ALL = {"allow": False, "access": "rwm"}
MEGABYTE = 1 << 20


class Child:
    """A process in the group that runs `work` and whose exit code is its result; killed and reaped at the end."""

    def __init__(self, group: Cgroup, work, way="entry") -> None:
        self.entered, entered = os.pipe()
        into = group.enter_fd()
        fds = group.entry_fds()
        self.pid = clone_into(into) if way == "entry" and into is not None else os.fork()
        if self.pid == 0:
            code = 255
            try:
                if way == "entry":
                    for fd in fds:
                        os.write(fd, b"0")
                else:
                    group.add(os.getpid())
                os.write(entered, b".")
                code = work() or 0
            except BaseException:  # noqa: BLE001 - a forked child
                traceback.print_exc()
            finally:
                os._exit(code)
        for fd in [*fds, entered, *([] if into is None else [into])]:
            os.close(fd)
        assert os.read(self.entered, 1) == b".", "the child did not enter"

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exc) -> None:
        os.close(self.entered)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def wait(self, timeout=20.0) -> int:
        """The exit code, or minus the signal."""
        fd = os.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        ended = poll.poll(timeout * 1000)
        os.close(fd)
        assert ended, "the child does not end"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def clone_into(fd: int) -> int:
    """fork() into the v2 group `fd` by clone3(CLONE_INTO_CGROUP)."""
    arguments = struct.pack("=11Q", 0x200000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, fd)
    call = ctypes.PyDLL(None, use_errno=True).syscall
    pid = call(ctypes.c_long(435), arguments, ctypes.c_size_t(len(arguments)))
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return pid


def until(condition, what: str, timeout=10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)


def pause() -> None:
    signal.pause()


def refused(number: int, action, *arguments) -> OSError:
    raised = None
    try:
        action(*arguments)
    except OSError as error:
        raised = error
    assert raised is not None, f"errno {number} expected, nothing was raised"
    assert raised.errno == number, f"errno {number} expected: {raised!r}"
    return raised


def text(group: Cgroup, v1: tuple[str, str], v2: str) -> str:
    """A file's content: (controller, name) on v1, the name on v2."""
    path = group.paths[""] + "/" + v2 if layout().version == 2 else group.paths[v1[0]] + "/" + v1[1]
    with open(path) as file:
        return file.read().strip()


def check_creation_and_deletion_are_idempotent(group: Cgroup) -> None:
    group.create()
    assert all(os.path.isdir(path) for path in group.paths.values())
    assert group.processes() == []
    group.delete()
    group.delete()
    assert not any(os.path.exists(path) for path in group.paths.values())
    assert group.processes() == []


def check_a_process_enters_both_ways_and_groups_inside_are_removed(group: Cgroup) -> None:
    for way in ("entry", "add"):
        with Child(group, pause, way) as child:
            assert group.processes() == [child.pid]
            with open(f"/proc/{child.pid}/cgroup") as file:
                lines = file.read().splitlines()
            names = {line.split(":", 2)[2] for line in lines if line.split(":")[1].split(",")[0] in group.paths}
            assert len(names) == 1, lines
            refused(errno.EBUSY, group.delete, 0.05)
    for path in group.paths.values():
        os.makedirs(path + "/inner/most")
    group.delete()
    assert not any(os.path.exists(path) for path in group.paths.values())


def check_a_process_enters_beside_a_manager_inside(group: Cgroup) -> None:
    if layout().version == 1:
        return
    inner = group.paths[""] + "/init.scope"
    os.mkdir(inner)
    with Child(group, pause) as first:
        with open(inner + "/cgroup.procs", "w") as file:
            file.write(str(first.pid))
        with open(group.paths[""] + "/cgroup.subtree_control", "w") as file:
            file.write("+pids")
        with Child(group, pause) as second:
            assert group.processes() == sorted([first.pid, second.pid])
            with open(f"/proc/{second.pid}/cgroup") as file:
                assert file.read().strip().endswith("/init.scope")


def check_kill_reaches_every_process(group: Cgroup) -> None:
    def breed() -> None:
        while True:
            try:
                os.fork()
            except OSError:
                pause()

    group.apply({"pids": {"limit": 12}})
    with Child(group, breed) as child:
        until(lambda: len(group.processes()) == 12, "twelve processes")
        group.kill()
        assert child.wait() == -signal.SIGKILL
        until(lambda: not group.processes(), "an empty group")


def check_freezing_stops_and_thawing_resumes(group: Cgroup) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)

    def tick() -> None:
        while True:
            try:
                os.write(writer, b".")
            except BlockingIOError:
                pass

    def drained() -> bool:
        try:
            return not os.read(reader, 1 << 20)
        except BlockingIOError:
            return True

    with Child(group, tick) as child:
        group.freeze()
        assert group.frozen()
        until(drained, "silence")
        assert not select.select([reader], [], [], 0.05)[0], "a frozen process wrote"
        group.thaw()
        assert not group.frozen()
        assert select.select([reader], [], [], 10)[0], "a thawed process does not write"
        group.freeze()
        group.kill()  # must not wait for a thaw
        assert child.wait() == -signal.SIGKILL
    os.close(reader)
    os.close(writer)


def check_pids_limit_holds_and_is_lifted(group: Cgroup) -> None:
    def fork_twice() -> int:
        made = 0
        for _ in range(3):
            try:
                if os.fork() == 0:
                    pause()
                made += 1
            except BlockingIOError:
                break
        return made

    group.apply({"pids": {"limit": 3}})
    with Child(group, fork_twice) as child:
        assert child.wait() == 2
    assert group.stats().pids_limit == 3
    group.kill()
    until(lambda: not group.processes(), "an empty group")
    for limit in (-1, 0):
        group.apply({"pids": {"limit": limit}})
        assert group.stats().pids_limit is None


def check_memory_limit_kills_and_is_counted(group: Cgroup) -> None:
    def eat() -> None:
        held = mmap.mmap(-1, 64 * MEGABYTE)
        for offset in range(0, len(held), 4096):
            held[offset] = 1

    group.apply({"memory": {"limit": 16 * MEGABYTE, "swap": 16 * MEGABYTE}})
    assert group.oom_kills() == 0
    with Child(group, eat) as child:
        assert child.wait() == -signal.SIGKILL
    until(lambda: group.oom_kills() == 1, "a counted kill")
    stats = group.stats()
    assert stats.memory.limit == 16 * MEGABYTE
    assert stats.memory.peak is None or stats.memory.peak > 8 * MEGABYTE
    assert stats.cpu.total_ns > 0
    glance = group.glance()
    assert glance.cpu_ns == group.cpu_ns() == stats.cpu.total_ns
    assert (glance.memory, glance.pids) == (group.stats().memory.usage, 0)


def check_memory_limits_move_both_ways(group: Cgroup) -> None:
    for limit in (32, 128, 16):
        group.apply({"memory": {"limit": limit * MEGABYTE, "swap": limit * MEGABYTE, "reservation": 8 * MEGABYTE}})
        assert group.stats().memory.limit == limit * MEGABYTE
    assert text(group, ("memory", "memory.soft_limit_in_bytes"), "memory.low") == str(8 * MEGABYTE)
    group.apply({"memory": {"limit": -1}})
    assert group.stats().memory.limit is None
    refused(errno.EINVAL, group.apply, {"memory": {"limit": 8 * MEGABYTE, "swap": 4 * MEGABYTE}})


def check_cpu_share_and_quota(group: Cgroup) -> None:
    group.apply({"cpu": {"shares": 2048, "quota": 50000, "period": 100000, "burst": 10000, "cpus": "0", "mems": "0"}})
    assert text(group, ("cpu", "cpu.shares"), "cpu.weight") == ("2048" if layout().version == 1 else "174")
    assert text(group, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] == "50000"
    assert text(group, ("cpu", "cpu.cfs_burst_us"), "cpu.max.burst") == "10000"
    assert text(group, ("cpuset", "cpuset.cpus"), "cpuset.cpus") == "0"
    group.apply({"cpu": {"quota": 20000, "burst": 0}})
    group.apply({"cpu": {"period": 50000}})
    assert text(group, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] == "20000"
    assert text(group, ("cpu", "cpu.cfs_period_us"), "cpu.max").split()[-1] == "50000"
    group.apply({"cpu": {"quota": -1}})
    assert text(group, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] in ("-1", "max")
    group.apply({"cpu": {"idle": 1}})
    assert text(group, ("cpu", "cpu.idle"), "cpu.idle") == "1"
    group.apply({"cpu": {"idle": 0, "shares": 512}})
    assert text(group, ("cpu", "cpu.idle"), "cpu.idle") == "0"


def opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except PermissionError:
        return False
    return True


def check_device_rules(group: Cgroup) -> None:
    def try_devices() -> int:
        return (
            opens("/dev/null", os.O_RDWR)
            | opens("/dev/zero", os.O_RDONLY) << 1
            | opens("/dev/zero", os.O_WRONLY) << 2
            | opens("/dev/kmsg", os.O_RDONLY) << 3
        )

    def seen() -> int:
        with Child(group, try_devices) as child:
            return child.wait()

    full, null = {"allow": True, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    zero = {"type": "c", "major": 1, "minor": 5}
    group.apply({"devices": [DENY_ALL, null]})
    assert seen() == 0b0001
    group.apply({"devices": [DENY_ALL, *DEFAULT_DEVICES, {**zero, "allow": False, "access": "w"}]})
    assert seen() == 0b0011
    group.apply({"devices": [DENY_ALL, {"allow": True, "type": "c", "access": "r"}, null]})
    assert seen() == 0b1011
    group.apply({"devices": [full]})
    assert seen() == 0b1111
    refused(errno.EINVAL, group.apply, {"devices": [{"allow": True, "type": "p", "access": "r"}]})
    assert seen() == 0b1111, "a refused list changed something"


def check_making_nodes_is_an_access(group: Cgroup) -> None:
    def make() -> int:
        path = f"/tmp/node-{os.getpid()}"
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
            os.unlink(path)
            return 1
        except PermissionError:
            return 0

    for access, expected in (("rw", 0), ("m", 1)):
        group.apply({"devices": [DENY_ALL, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": access}]})
        with Child(group, make) as child:
            assert child.wait() == expected, access


def check_wrong_values_name_themselves(group: Cgroup) -> None:
    for resources, word in (
        ({"memory": {"limit": "1g"}}, "limit"),
        ({"memory": 5}, "memory"),
        ({"pids": {"limit": True}}, "limit"),
        ({"cpu": {"cpus": 0.5}}, "cpus"),
        ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}, "pageSize"),
    ):
        assert word in str(refused(errno.EINVAL, group.apply, resources))
    error = refused(errno.EINVAL, group.apply, {"cpu": {"cpus": "none"}})
    assert error.filename.endswith("cpuset.cpus")
    assert "none" in str(error)
    if layout().version == 1:
        refused(errno.EOPNOTSUPP, group.apply, {"unified": {"memory.max": "1"}})
        refused(errno.ENOENT, group.apply, {"rdma": {"mlx5_0": {"hcaHandles": 1}}})
    else:
        refused(errno.EINVAL, group.apply, {"unified": {"../memory.max": "1"}})
        refused(errno.EOPNOTSUPP, group.apply, {"memory": {"swappiness": 10}})
        refused(errno.EOPNOTSUPP, group.apply, {"memory": {"disableOOMKiller": True}})
        group.apply({"unified": {"memory.high": "8388608", "pids.max": "7"}})
        assert group.stats().pids_limit == 7
        assert "controller bogus" in str(refused(errno.ENOENT, group.apply, {"unified": {"bogus.max": "1"}}))


def check_paths_that_name_no_group_are_refused(group: Cgroup) -> None:
    for path in ("/", "", "/..", "/a\n", "."):
        refused(errno.EINVAL, cgroup, path)
    assert cgroup("/a/../../b").paths == cgroup("/b").paths


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


def run(check, name: str) -> None:
    """One check on a group of its own, which is gone afterwards."""
    group = cgroup(name)
    group.create()
    try:
        check(group)
    finally:
        group.kill()
        group.delete(5.0)


if __name__ == "__main__":
    for title, one in CHECKS.items():
        try:
            run(one, f"/suite/{title}")
            print(f'\n{{"check": "{title}", "failure": null}}', flush=True)
        except Exception:  # noqa: BLE001 - reported
            failure = traceback.format_exc().encode().hex()
            print(f'\n{{"check": "{title}", "failure": "{failure}"}}', flush=True)
    sys.exit(0)
