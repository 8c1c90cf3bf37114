"""The monitor as the engine uses it: one process per test module, killed and replaced at will."""

import asyncio
import os
import select
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from bundle import Box, config

from wherry.errors import Conflict, FailedPrecondition, NotFound, Unavailable
from wherry.kernel.processes import pidfd_open
from wherry.runtime.client import Exit, Monitor, Started, Stdio, spawn

pytestmark = pytest.mark.root
NOTHING = Stdio(None, None, None)


class Harbor:
    """A monitor under its own exec-root, and bundles for it."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.root = box.path / "exec"
        self.pid = spawn(self.root)
        self.exits: asyncio.Queue[Exit] = asyncio.Queue()
        self.lost = asyncio.Event()

    async def connect(self) -> Monitor:
        return await Monitor.connect(self.root / "monitor.sock", self.exits.put_nowait, self.lost.set)

    async def run(
        self, monitor: Monitor, *args: str, stdio: Stdio = NOTHING, hold: tuple[int, ...] = (), **process: Any
    ) -> tuple[str, Started]:
        identifier = self.box.new_id()
        self.box.write(config(*args, **process), identifier)
        started = await monitor.run(identifier, self.box.path / "bundle", [], stdio, hold)
        return identifier, started

    async def next_exit(self) -> Exit:
        return await asyncio.wait_for(self.exits.get(), 10)

    def kill(self) -> None:
        pidfd = pidfd_open(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)


def with_monitor(test: Callable[[Harbor, Monitor], Awaitable[None]]) -> Callable[[Box], None]:
    def run(box: Box) -> None:
        async def main() -> None:
            harbor = Harbor(box)
            monitor = await harbor.connect()
            try:
                await asyncio.wait_for(test(harbor, monitor), 60)
            finally:
                harbor.pid = spawn(harbor.root)  # the same one, unless the test killed it
                last = await harbor.connect()
                monitor.close()
                for identifier in box.made:
                    await last.delete(identifier, force=True)
                box.made.clear()
                # With nothing to watch and nobody to serve it ends by itself.
                pidfd = pidfd_open(harbor.pid)
                last.close()
                assert select.select([pidfd], [], [], 10)[0]
                os.close(pidfd)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@with_monitor
async def test_run_and_exit(harbor: Harbor, monitor: Monitor) -> None:
    reading, writing = os.pipe()
    identifier, started = await harbor.run(monitor, "sh", "-c", "echo out; exit 3", stdio=Stdio(None, writing, None))
    os.close(writing)
    ended = await harbor.next_exit()
    assert (ended.id, ended.exec_id, ended.status, ended.oom_killed) == (identifier, None, 3, False)
    assert os.read(reading, 10) == b"out\n"
    os.close(reading)
    state = await monitor.state(identifier)
    assert (state.status, state.exit) == ("stopped", ended)
    await monitor.delete(identifier)
    await monitor.delete(identifier)
    with pytest.raises(NotFound):
        await monitor.state(identifier)
    os.close(started.pidfd)


@with_monitor
async def test_errors_cross_with_their_kind(harbor: Harbor, monitor: Monitor) -> None:
    with pytest.raises(NotFound, match=r'exec: "nothing": executable file not found in \$PATH'):
        await harbor.run(monitor, "nothing")
    assert await monitor.list() == []
    identifier, started = await harbor.run(monitor, "sleep", "60")
    with pytest.raises(Conflict):
        await monitor.run(identifier, harbor.box.path / "bundle", [], NOTHING)
    with pytest.raises(FailedPrecondition):
        await monitor.delete(identifier)
    with pytest.raises(NotFound):
        await monitor.kill("no-such", 9)
    await monitor.kill(identifier, signal.SIGKILL)
    assert (await harbor.next_exit()).status == 137
    with pytest.raises(FailedPrecondition, match="not running"):
        await monitor.kill(identifier, 9)
    os.close(started.pidfd)


@with_monitor
async def test_many_at_once(harbor: Harbor, monitor: Monitor) -> None:
    bundles = []
    for number in range(12):
        identifier = harbor.box.new_id()
        harbor.box.write(config("sh", "-c", f"exit {number}"), identifier)
        bundle = harbor.box.path / f"bundle{number}"
        bundle.mkdir()
        (harbor.box.path / "bundle" / "config.json").rename(bundle / "config.json")
        (bundle / "rootfs").symlink_to(harbor.box.rootfs)
        bundles.append((identifier, bundle))
    started = await asyncio.gather(*[monitor.run(i, b, [], NOTHING) for i, b in bundles])
    ends = {ended.id: ended.status for ended in [await harbor.next_exit() for _ in bundles]}
    assert ends == {identifier: number for number, (identifier, _) in enumerate(bundles)}
    for one in started:
        os.close(one.pidfd)


@with_monitor
async def test_exec_create_pause(harbor: Harbor, monitor: Monitor) -> None:
    identifier = harbor.box.new_id()
    harbor.box.write(config("sleep", "60"), identifier)
    created = await monitor.create(identifier, harbor.box.path / "bundle", [], NOTHING)
    assert (await monitor.state(identifier)).status == "created"
    await monitor.start(identifier)
    assert (await monitor.state(identifier)).status == "running"
    process = config("sh", "-c", "exit 7")["process"]
    executed = await monitor.exec(identifier, "e1", process, NOTHING)
    ended = await harbor.next_exit()
    assert (ended.id, ended.exec_id, ended.status) == (identifier, "e1", 7)
    assert await monitor.processes(identifier) == [created.pid]
    await monitor.pause(identifier)
    assert [(s.id, s.status) for s in await monitor.list()] == [(identifier, "paused")]
    await monitor.resume(identifier)
    await monitor.update(identifier, {"pids": {"limit": 17}})
    os.close(created.pidfd)
    os.close(executed.pidfd)


@with_monitor
async def test_terminal_and_held_descriptors(harbor: Harbor, monitor: Monitor) -> None:
    reading, writing = os.pipe()
    identifier, started = await harbor.run(
        monitor, "sh", "-c", "read x; echo got $x", terminal=True, hold=(reading, writing)
    )
    os.close(reading)
    os.close(writing)
    held = await monitor.held(identifier)
    os.write(held[1], b"kept")
    assert os.read(held[0], 10) == b"kept"
    # The third is the terminal's master; the container does not hang up when ours is closed.
    assert started.console is not None
    os.close(started.console)
    os.write(held[2], b"hello\n")
    assert (await harbor.next_exit()).status == 0
    assert b"got hello" in os.read(held[2], 4096)
    await monitor.release(identifier, 1)
    for fd in held:
        os.close(fd)
    again = await monitor.held(identifier)
    assert again[1] == -1
    for fd in again:
        if fd >= 0:
            os.close(fd)
    os.close(started.pidfd)


@with_monitor
async def test_containers_outlive_the_monitor(harbor: Harbor, monitor: Monitor) -> None:
    trigger_read, trigger_write = os.pipe()
    lives, one = await harbor.run(monitor, "sh", "-c", "read x; exit 5", stdio=Stdio(trigger_read, None, None))
    dies, two = await harbor.run(monitor, "sleep", "60")
    executed = await monitor.exec(lives, "e1", config("sleep", "60")["process"], NOTHING)
    os.close(trigger_read)
    harbor.kill()
    await asyncio.wait_for(harbor.lost.wait(), 10)
    with pytest.raises(Unavailable):
        await monitor.list()
    os.kill(two.pid, signal.SIGKILL)
    assert select.select([two.pidfd], [], [], 10)[0]

    harbor.pid = spawn(harbor.root)
    assert spawn(harbor.root) == harbor.pid
    harbor.lost.clear()
    again = await harbor.connect()
    assert {s.id: s.status for s in await again.list()} == {lives: "running", dies: "stopped"}
    # Nobody of ours saw it end: it is said to be unknown rather than guessed.
    ended = (await again.state(dies)).exit
    assert ended is not None
    assert ended.status in (-1, 137)
    os.kill(executed.pid, signal.SIGTERM)
    seen = await harbor.next_exit()
    assert (seen.exec_id, seen.status) == ("e1", 143)
    os.write(trigger_write, b"\n")
    seen = await harbor.next_exit()
    assert (seen.id, seen.status) == (lives, 5)
    for identifier in (lives, dies):
        await again.delete(identifier)
    again.close()
    for fd in (trigger_write, one.pidfd, two.pidfd, executed.pidfd):
        os.close(fd)


@with_monitor
async def test_process_is_guarded(harbor: Harbor, monitor: Monitor) -> None:
    """Its name, its socket (CVE-2020-15257: no abstract one, nobody else may connect), its executable."""
    listed = await asyncio.to_thread(subprocess.check_output, ["pgrep", "-f", "wherry monitor"], text=True)
    assert str(harbor.pid) in listed.split()
    assert Path(f"/proc/{harbor.pid}/comm").read_text() == "wherry-monitor\n"
    assert (harbor.root / "monitor.sock").stat().st_mode & 0o777 == 0o600
    names = [line.split()[7:] for line in Path("/proc/net/unix").read_text().splitlines() if str(harbor.root) in line]
    assert names
    assert not any(name[0].startswith("@") for name in names)
    assert os.readlink(f"/proc/{harbor.pid}/exe").count("/") == 1  # detached
    os.chmod(harbor.root / "monitor.sock", 0o666)
    for path in (harbor.root, *harbor.root.parents):
        if path == Path("/tmp"):
            break
        path.chmod(path.stat().st_mode | 0o011)
    stranger = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(5)\n"
    stranger += f"s.connect({str(harbor.root / 'monitor.sock')!r}); sys.exit(s.recv(10) != b'')"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/env", "python3", "-c", stranger]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
    # Let in by the file's mode, it is shown the door: end of file, or a reset when that came first.
    assert done.returncode == 0 or "ConnectionResetError" in done.stderr, done.stderr
    assert await monitor.ping() == harbor.pid
    assert await monitor.list() == []


@with_monitor
async def test_malformed_requests_end_nothing(harbor: Harbor, monitor: Monitor) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        raw.connect(str(harbor.root / "monitor.sock"))
        for data in (
            b"x",
            b"[]",
            b"{}",
            b'{"seq":1,"op":"run"}',
            b'{"seq":1,"op":"run","args":{"id":5}}',
            b'{"seq":1,"op":"no"}',
        ):
            raw.send(data)
            assert b'"error"' in raw.recv(4096)
    assert await monitor.list() == []


@with_monitor
async def test_its_helpers_end_with_it_and_are_replaced(harbor: Harbor, monitor: Monitor) -> None:
    identifier, started = await harbor.run(monitor, "sleep", "60")
    await monitor.kill(identifier, signal.SIGKILL)
    await harbor.next_exit()
    os.close(started.pidfd)
    children = Path(f"/proc/{harbor.pid}/task/{harbor.pid}/children")
    for _ in range(2):
        # The forker and its spare process; both are killed, and the next start finds others.
        helpers = [int(pid) for pid in children.read_text().split()]
        assert helpers
        for pid in helpers:
            os.kill(pid, signal.SIGKILL)
        identifier, started = await harbor.run(monitor, "true")
        assert (await harbor.next_exit()).status == 0
        os.close(started.pidfd)
    watched = [pidfd_open(int(pid)) for pid in children.read_text().split()]
    harbor.kill()
    for pidfd in watched:
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)


# What a fork copies and a cold start loads. `typing`, `re`, `enum`, `json`, `socket`, `dataclasses` would each cost
# more than all of ours.
_ALLOWED_NAMES = """
    __future__ __main__ abc array atexit builtins codecs collections collections.abc ctypes
    ctypes._endian encodings encodings.aliases encodings.ascii encodings.utf_8 errno fcntl gc
    genericpath hashlib io itertools keyword marshal math operator os os.path posix posixpath reprlib
    resource select stat struct sys termios time types zipimport
"""
ALLOWED = frozenset(_ALLOWED_NAMES.split())


def test_imports() -> None:
    code = "import sys; sys.path.insert(0, 'src'); import wherry.runtime.monitor_main, wherry.kernel.seccomp; "
    code += "import wherry.kernel.cgroups.v1, wherry.kernel.cgroups.v2; print(*sys.modules)"
    root = Path(__file__).resolve().parents[3]
    python = os.path.realpath(__import__("sys").executable)
    loaded = set(
        subprocess.run(
            [python, "-I", "-S", "-c", code], cwd=root, capture_output=True, text=True, check=True
        ).stdout.split()
    )
    ours = {name for name in loaded if name.startswith("wherry")}
    assert not {name for name in loaded - ours - ALLOWED if not name.startswith("_")}
    assert {name.split(".")[1] for name in ours if "." in name} <= {"errors", "ipc", "kernel", "runtime", "spec"}
    assert not ours & {"wherry.runtime.client", "wherry.spec.decode"}
