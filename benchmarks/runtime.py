"""One container from start to reaped: warm monitor, cold command, other runtimes, taking turns on the same bundle.

    benchmarks/runtime.py BUNDLE [--rounds 200] [--peer crun --peer runc] [--inside PID]

BUNDLE: a directory with config.json and rootfs/, its program ending at once. --inside: run the peers in the mount
namespace and root of this process, where BUNDLE must be found under the same path.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

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


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--inside", type=int)
    options = parser.parse_args()
    cold = Path(sys.executable).with_name("wherry-runtime")
    peers = {cold.name: peer(str(cold), options.bundle, None)}
    peers |= {name: peer(name, options.bundle, options.inside) for name in options.peer}
    with tempfile.TemporaryDirectory() as scratch:
        pid = spawn(Path(scratch))
        ended: asyncio.Queue[Exit] = asyncio.Queue()
        monitor = await Monitor.connect(Path(scratch) / "monitor.sock", ended.put_nowait, lambda: None)
        figures: dict[str, list[float]] = {name: [] for name in ("monitor", "monitor, with delete", *peers)}
        for number in range(options.rounds):
            begin = time.perf_counter()
            started = await monitor.run(f"b{number}", Path(options.bundle), [], Stdio(None, None, None))
            await ended.get()
            figures["monitor"].append(time.perf_counter() - begin)
            await monitor.delete(f"b{number}")
            figures["monitor, with delete"].append(time.perf_counter() - begin)
            os.close(started.pidfd)
            for name, run in peers.items():
                figures[name].append(next(run))
        monitor.close()
        os.kill(pid, 15)
    base = statistics.median(figures["monitor"])
    print(f"{'':24}{'median':>10}{'fastest':>10}{'ratio':>8}")
    for name, seconds in figures.items():
        median = statistics.median(seconds)
        print(f"{name:24}{median * 1e3:7.2f} ms{min(seconds) * 1e3:7.2f} ms{median / base:8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
