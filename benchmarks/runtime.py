"""One container from start to reaped: warm monitor and cold command, beside other runtimes on the same bundle."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from wherry.kernel import namespaces
from wherry.runtime.client import Exit, Monitor, Stdio, spawn


def peer(command: str, bundle: str, inside: int | None) -> Iterator[float]:
    """Seconds of one `run` after the other, as a process in the right place takes them."""
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    if os.fork() == 0:
        os.close(from_parent)
        if inside is not None:
            root = os.open(f"/proc/{inside}/root", os.O_PATH)
            namespaces.setns(namespaces.open_namespace(inside, "mount"))
            os.fchdir(root)
            os.chroot(".")
        null = os.open("/dev/null", os.O_RDWR)
        while os.read(to_child, 1):
            begin = time.perf_counter()
            arguments = [command, "run", "--bundle", bundle, f"bench-{os.getpid()}"]
            pid = os.posix_spawnp(command, arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 0)])
            failed = os.waitpid(pid, 0)[1]
            os.write(from_child, f"{-1 if failed else time.perf_counter() - begin:.9f} ".encode().ljust(16))
        os._exit(0)
    os.close(to_child)
    os.close(from_child)
    while True:
        os.write(from_parent, b"x")
        seconds = float(os.read(to_parent, 16))
        if seconds < 0:
            raise SystemExit(f"{command} run failed")
        yield seconds


def make_bundle(directory: Path, archive: Path, command: Path) -> None:
    """A bundle that runs `true` on the root file system `archive`, else as `wherry-runtime spec` has it."""
    (directory / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-xf", archive, "-C", directory / "rootfs"], check=True)
    subprocess.run([command, "spec", "--bundle", directory], check=True)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["true"]}
    path.write_text(json.dumps(config))


def print_table(archive: Path, command: Path, rounds: int, names: list[str], inside: int | None) -> None:
    """Measure in turns and print. `inside`: a process whose root and mount namespace the peers `names` live in."""
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as scratch:
        bundle = Path(scratch) / "bundle"
        make_bundle(bundle, archive, command)
        peers = {f"`{command.name} run`, cold": peer(str(command), str(bundle), None)}
        theirs = Path("/var/tmp") / Path(scratch).name
        outside = Path(f"/proc/{inside}/root{theirs}") if inside is not None else None
        try:
            if outside is not None:
                make_bundle(outside, archive, command)
            for name in names:
                peers[f"`{name} run`"] = peer(name, str(bundle if outside is None else theirs), inside)
            figures = asyncio.run(_measure(Path(scratch), bundle, rounds, peers))
        finally:
            if outside is not None:
                shutil.rmtree(outside, ignore_errors=True)
    print("\n| one container, start to reaped, no network | median | least |\n|---|---|---|")
    for name, seconds in figures.items():
        print(f"| {name} | {median(seconds) * 1e3:.2f} ms | {min(seconds) * 1e3:.2f} ms |", flush=True)


async def _measure(
    scratch: Path, bundle: Path, rounds: int, peers: dict[str, Iterator[float]]
) -> dict[str, list[float]]:
    run = scratch / "run"
    await asyncio.to_thread(spawn, run)
    ended: asyncio.Queue[Exit] = asyncio.Queue()
    monitor = await Monitor.connect(run / "monitor.sock", ended.put_nowait, lambda: None)
    figures: dict[str, list[float]] = {"by the warm monitor": [], "the same, and deleted": []}
    figures |= {name: [] for name in peers}
    for number in range(-3, rounds):
        begin = time.perf_counter()
        started = await monitor.run(f"b{number}", bundle, [], Stdio(None, None, None))
        await ended.get()
        reaped = time.perf_counter() - begin
        await monitor.delete(f"b{number}")
        taken = [reaped, time.perf_counter() - begin, *(next(run) for run in peers.values())]
        os.close(started.pidfd)
        if number >= 0:
            for series, seconds in zip(figures.values(), taken, strict=True):
                series.append(seconds)
    monitor.close()
    return figures
