"""`scripts/bench`: the table of figures.

usage: scripts/bench [--peer-host unix:///path/of/dockerd.sock] [--runs N] [--count N] [--only GROUP ...]
                     [--peer-runtime NAME ...] [--peer-inside PID] [--image-size MB] [--huge] [--peer-registry PROGRAM]

A group of figures is a function in a module of its own, entered in GROUPS; `runtime` needs no daemon.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.build import build_rows
from benchmarks.engines import Row, Side, crowd_rows, image, latency_rows
from benchmarks.images import image_rows
from benchmarks.life import health_rows, stats_rows
from benchmarks.logs import log_rows
from benchmarks.names import name_rows
from benchmarks.networks import network_rows
from benchmarks.peer import Engine
from benchmarks.runtime import print_table
from benchmarks.stored import stored_rows
from benchmarks.volumes import volume_rows

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
GROUPS: dict[str, Callable[[list[Side], argparse.Namespace], Iterator[Row]]] = {
    "api": lambda sides, options: latency_rows(sides, options.runs),
    "build": lambda sides, options: build_rows(sides, min(options.runs, 7)),
    "crowd": lambda sides, options: crowd_rows(sides, options.count, options.runs),
    "images": lambda sides, options: image_rows(sides, options),
    "dns": lambda sides, options: name_rows(sides, options.runs),
    "health": lambda sides, options: health_rows(sides, min(options.count, 200)),
    "logs": lambda sides, options: log_rows(sides, options.runs),
    "network": lambda sides, options: network_rows(sides, options.runs),
    "stats": lambda sides, options: stats_rows(sides, options.count, min(options.runs, 5)),
    "stored": lambda sides, options: stored_rows(sides, options.runs),
    "volumes": lambda sides, options: volume_rows(sides, options.runs),
}


def main() -> int:
    options = _options()
    # Whoever stops a run early leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wherry-bench-")))
        print(_machine(), flush=True)
        archive = scratch / "busybox.tar"
        subprocess.run(
            [BIN / "python", "-W", "ignore", "-m", "wherry.images.bootstrap", "busybox", archive], check=True
        )
        chosen = [name for name in GROUPS if not options.only or name in options.only]
        if chosen:
            # The exec-root belongs on a tmpfs, as /run is; here it must not depend on whether this machine's is one.
            run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wherry-bench-", dir="/dev/shm")))
            sides = [stack.enter_context(_ours(scratch, run))]
            if options.peer_host:
                sides.append(_peer(options.peer_host))
            for side in sides:
                stack.enter_context(image(side, archive))
            _heading()
            for name in chosen:
                _print(GROUPS[name](sides, options))
        if not options.only or "runtime" in options.only:
            names = options.peer_runtime or [name for name in ("crun", "runc") if shutil.which(name)]
            print_table(archive, BIN / "wherry-runtime", 2 * options.runs, names, options.peer_inside)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure Wherry, beside a dockerd if one is given"
    )
    parser.add_argument("--peer-host", help="a dockerd's socket, unix:///path: measured side by side")
    parser.add_argument("--runs", type=int, default=30, help="counted runs of each latency (default 30)")
    parser.add_argument("--count", type=int, default=300, help="containers in the crowd (default 300)")
    parser.add_argument("--only", action="append", choices=(*GROUPS, "runtime"), help="a group of figures")
    parser.add_argument("--peer-runtime", action="append", help="an OCI runtime (default: crun and runc, if there)")
    parser.add_argument("--peer-inside", type=int, metavar="PID", help="run those in this process's root and mounts")
    parser.add_argument("--image-size", type=int, default=1000, metavar="MB", help="of the image that is pulled (1000)")
    parser.add_argument("--image-data", type=Path, metavar="DIR", help="keep what is generated, for the next run")
    parser.add_argument("--huge", action="store_true", help="measure memory during a pull of 5 GB too")
    parser.add_argument("--peer-registry", metavar="PROGRAM", help="docker-registry: its throughput beside ours")
    options = parser.parse_args()
    if options.peer_host and not options.peer_host.startswith("unix://"):
        parser.error("--peer-host must be a unix:// socket: processes are measured too")
    return options


@contextmanager
def _ours(scratch: Path, run: Path) -> Iterator[Side]:
    socket = scratch / "wherry.sock"
    log = (scratch / "daemon.log").open("w")
    daemon = subprocess.Popen(
        [BIN / "wherry", "daemon", "-H", f"unix://{socket}", "--data-root", scratch / "data", "--exec-root", run]
        + ["--pidfile", scratch / "pid"],
        stderr=log,
        # A session of its own, as a daemon has: the scheduler shares the machine among sessions (autogroups).
        start_new_session=True,
    )
    try:
        _await_socket(socket, daemon, log.name)
        yield Side(
            Engine("wherry", str(socket)),
            (str(BIN / "wherry"), "-H", f"unix://{socket}"),
            (f"{run}/", f"{run} "),
        )
    finally:
        daemon.terminate()
        daemon.wait()
        log.close()


def _await_socket(socket: Path, daemon: "subprocess.Popen[bytes]", log: str) -> None:
    for _ in range(6000):
        if daemon.poll() is not None:
            raise SystemExit(f"the daemon ended as it started:\n{Path(log).read_text()}")
        if socket.exists():
            return
        time.sleep(0.01)
    raise SystemExit("the daemon's socket did not appear within a minute")


def _peer(host: str) -> Side:
    marks = ("containerd-shim", "/containerd ", "containerd --", "docker-proxy", "dockerd ")
    return Side(Engine("dockerd", host.removeprefix("unix://")), ("docker", "-H", host), marks)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, Linux {platform.release()}, Python {platform.python_version()}\n"


def _heading() -> None:
    print("| figure | wherry | dockerd | ratio | to reach |\n|---|---|---|---|---|", flush=True)


def _print(rows: Iterator[Row]) -> None:
    for row in rows:
        peer = "-" if row.peer is None else f"{row.peer:.4g} {row.unit}"
        ratio = "-" if not row.peer else f"{row.ours / row.peer:.3f}"
        print(f"| {row.name} | {row.ours:.4g} {row.unit} | {peer} | {ratio} | {row.target} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
