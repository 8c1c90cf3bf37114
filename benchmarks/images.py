"""Images: pull, push, save and load of a large one, memory meanwhile, and the registry's own throughput."""

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.engines import Row, Side, shell
from benchmarks.image_data import Blob, make_layers, our_registry, peer_registry, plain_layer, put_blob, put_image
from benchmarks.peer import pss

_LAYERS = 6
_FILES = 30_000
_CLIENTS = 32
_TIMES = 3
_BIG = 40 << 20
_SMALL = 20_000
_HUGE = 5 << 30
_REST_SECONDS = 1.0


def image_rows(sides: list[Side], options: argparse.Namespace) -> Iterator[Row]:
    """All of it. Runs are few: each moves `--image-size` megabytes several times."""
    with tempfile.TemporaryDirectory(prefix="wherry-bench-images-", dir="/var/tmp") as scratch:
        bench = _Bench(sides, Path(scratch), options)
        yield from bench.rows()


class _Bench:
    def __init__(self, sides: list[Side], scratch: Path, options: argparse.Namespace) -> None:
        self._sides, self._scratch, self._options = sides, scratch, options
        self._runs = max(1, min(options.runs, 3))
        self._log = scratch / "registry.log"

    def rows(self) -> Iterator[Row]:
        kept = self._options.image_data or self._scratch
        made = make_layers(kept, layers=_LAYERS, files=_FILES, size=self._options.image_size << 20)
        root = self._scratch / "registry"
        with ExitStack() as stack:
            # The same content served to each side where it lives: a peer may have a network namespace of its own.
            for_side = {
                side.engine.name: stack.enter_context(our_registry(root, self._log, beside=side.engine.pid()))
                for side in self._sides
            }
            for kind, layers in made.items():
                put_image(for_side["wherry"], f"bench/{kind}", layers)
                yield from self._pulls(kind, for_side)
                self._remove(kind, for_side)
            self._pull("gzip", for_side)
            yield self._push("gzip", for_side)
            yield from self._archives("gzip", for_side)
            self._remove("gzip", for_side)
            if self._options.huge:
                yield self._memory(for_side["wherry"])
        shutil.rmtree(root)
        if self._options.peer_registry:
            yield from self._throughput()

    def _pulls(self, kind: str, registries: dict[str, str]) -> Iterator[Row]:
        def pull(side: Side) -> None:
            shell(side, "pull", "--quiet", _name(registries, side, kind))

        def forget(side: Side) -> None:
            _forget(side, _name(registries, side, kind))

        size = f"{self._options.image_size} MB, {_FILES} files, {_LAYERS} layers, {kind}"
        yield self._row(f"pull, {size}", "1/2", pull, before=forget)
        if kind == "gzip":
            yield self._row("pull when all is there", "1/5", pull, unit="ms")

    def _push(self, kind: str, registries: dict[str, str]) -> Row:
        with ExitStack() as stack:

            def fresh(side: Side) -> None:
                stack.close()
                root = tempfile.mkdtemp(prefix="push-", dir=self._scratch)
                stack.callback(shutil.rmtree, root)
                address = stack.enter_context(our_registry(Path(root), self._log, beside=side.engine.pid()))
                targets[side.engine.name] = f"{address}/bench/push:latest"
                shell(side, "tag", _name(registries, side, kind), targets[side.engine.name])

            def push(side: Side) -> None:
                target = targets[side.engine.name]
                shell(side, "push", "--quiet", target)
                shell(side, "rmi", target)

            targets: dict[str, str] = {}
            return self._row("push of it to an empty registry", "2/3", push, before=fresh)

    def _archives(self, kind: str, registries: dict[str, str]) -> Iterator[Row]:
        """Each side saves; then both load the archive of the last one, a peer's where there is one."""
        files = {side.engine.name: self._scratch / f"{side.engine.name}.tar" for side in self._sides}

        def save(side: Side) -> None:
            shell(side, "save", "-o", str(files[side.engine.name]), _name(registries, side, kind))

        def drop(side: Side) -> None:
            files[side.engine.name].unlink(missing_ok=True)

        yield self._row("save of it", "2/3", save, before=drop)
        archives = list(files.items())
        for maker, archive in reversed(archives):

            def load(side: Side, archive: Path = archive) -> None:
                shell(side, "load", "--quiet", "-i", str(archive))

            def forget(side: Side) -> None:
                for name in registries.values():
                    _forget(side, f"{name}/bench/{kind}:latest")

            yield self._row(f"load of what {maker} saved", "2/3", load, before=forget)
        for side in self._sides:
            for name in registries.values():
                _forget(side, f"{name}/bench/{kind}:latest")
        for archive in files.values():
            archive.unlink()

    def _memory(self, registry: str) -> Row:
        """How far the daemon's resident memory rises at most over what it was while it pulls one huge layer."""
        blob: Blob = plain_layer(self._scratch / "huge", _HUGE)
        put_image(registry, "bench/huge", [blob])
        blob.path.unlink()
        side = self._sides[0]
        time.sleep(_REST_SECONDS)
        idle = pss(side.engine.pid())
        most, ended = [idle], threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                most[0] = max(most[0], pss(side.engine.pid()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            shell(side, "pull", "--quiet", f"{registry}/bench/huge:latest")
        finally:
            ended.set()
            watcher.join()
        _forget(side, f"{registry}/bench/huge:latest")
        return Row("peak memory above idle while pulling a layer of 5 GB", "MB", (most[0] - idle) / 1e6, None, "150 MB")

    def _throughput(self) -> Iterator[Row]:
        """curl, 32 at once: how many bytes of one large blob, and how many small blobs, in a second."""
        with ExitStack() as stack:
            ours = stack.enter_context(our_registry(self._scratch / "ours", self._log))
            theirs = stack.enter_context(
                peer_registry(self._options.peer_registry, self._scratch / "theirs", self._log, _free_port())
            )
            big, small = os.urandom(1 << 20) * (_BIG >> 20), [os.urandom(_SMALL) for _ in range(20)]
            served = {
                at: (put_blob(at, "bench/x", big), [put_blob(at, "bench/x", s) for s in small]) for at in (ours, theirs)
            }
            figures = {at: ([], []) for at in served}  # type: dict[str, tuple[list[float], list[float]]]
            for _ in range(self._runs + 1):
                for at, (large, many) in served.items():
                    figures[at][0].append(_CLIENTS * _TIMES * _BIG / 1e6 / _curl(at, [large] * _TIMES))
                    figures[at][1].append(_CLIENTS * _TIMES * len(many) / _curl(at, many * _TIMES))
            for index, (name, unit) in enumerate((("a blob of 40 MB", "MB/s"), ("blobs of 20 kB", "per second"))):
                rate, other = (median(figures[at][index][1:]) for at in (ours, theirs))
                yield Row(
                    f"registry: 32 clients getting {name} (against docker-registry)", unit, rate, other, "no less"
                )

    def _row(
        self,
        name: str,
        target: str,
        step: Callable[[Side], None],
        *,
        before: Callable[[Side], None] = lambda side: None,
        unit: str = "s",
    ) -> Row:
        """Median seconds of `step` for each side in turn; what `before` leaves to the disk is waited for."""
        times: list[list[float]] = [[] for _ in self._sides]
        for _ in range(self._runs):
            for index, side in enumerate(self._sides):
                before(side)
                os.sync()
                time.sleep(_REST_SECONDS)
                started = time.perf_counter()
                step(side)
                times[index].append(time.perf_counter() - started)
        found = [median(series) * (1e3 if unit == "ms" else 1) for series in times]
        return Row(name, unit, found[0], found[1] if len(found) > 1 else None, target)

    def _pull(self, kind: str, registries: dict[str, str]) -> None:
        for side in self._sides:
            shell(side, "pull", "--quiet", _name(registries, side, kind))

    def _remove(self, kind: str, registries: dict[str, str]) -> None:
        for side in self._sides:
            _forget(side, _name(registries, side, kind))


def _name(registries: dict[str, str], side: Side, kind: str) -> str:
    return f"{registries[side.engine.name]}/bench/{kind}:latest"


def _forget(side: Side, name: str) -> None:
    subprocess.run([*side.command, "rmi", "--force", name], capture_output=True, check=False)


def _curl(address: str, digests: list[str]) -> float:
    command = ["curl", "--silent", "--fail"]
    for digest in digests:
        command += ["-o", "/dev/null", f"http://{address}/v2/bench/x/blobs/{digest}"]
    started = time.perf_counter()
    clients = [subprocess.Popen(command) for _ in range(_CLIENTS)]
    if any([client.wait() for client in clients]):  # noqa: C419 - every one is waited for
        raise RuntimeError(f"{address}: a client failed")
    return time.perf_counter() - started


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
