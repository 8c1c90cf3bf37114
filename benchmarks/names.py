"""Names: questions to the server at 127.0.0.11, asked from within a container's network namespace."""

import socket
import struct
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.engines import IMAGE, LABEL, Row, Side, paired, remove_all
from benchmarks.peer import Engine
from wherry.kernel import netns

_NETWORK = "wherry-bench-names"
_TARGET = "wherry-bench-asked"
_SECONDS = 1.0
_RESOLVER = ("127.0.0.11", 53)


def name_rows(sides: list[Side], runs: int) -> Iterator[Row]:
    """Through UDP, by one client with one question under way at a time, and with sixteen; then a whole start."""
    pids = [_prepare(side.engine) for side in sides]
    try:
        for window in (1, 16):
            rates: list[list[float]] = [[] for _ in sides]
            lates: list[list[float]] = [[] for _ in sides]
            for _ in range(max(3, runs // 6)):
                for index, pid in enumerate(pids):
                    rate, late = _ask(pid, window)
                    rates[index].append(rate)
                    lates[index].append(late)
            shown = f"{window} question{'s' * (window > 1)} under way"
            yield _row(f"DNS: answers a second, {shown}", "per second", "no fewer", rates, 1)
            yield _row(f"DNS: p99 latency, {shown}", "ms", "no slower", lates, 1e3)
        seconds = paired(sides, runs, lambda side: _cycle(side.engine))
        peer = seconds[1] * 1e3 if len(seconds) > 1 else None
        yield Row("create + start + remove on a network with names", "ms", seconds[0] * 1e3, peer, "1/10")
    finally:
        for side in sides:
            remove_all(side.engine)
            side.engine.call("DELETE", f"/networks/{_NETWORK}")


def _row(name: str, unit: str, target: str, series: list[list[float]], scale: float) -> Row:
    figures = [median(each) * scale for each in series]
    return Row(name, unit, figures[0], figures[1] if len(figures) > 1 else None, target)


def _prepare(engine: Engine) -> int:
    """A network with two containers; the process of the one that asks."""
    engine.call("POST", "/networks/create", {"Name": _NETWORK, "EnableIPv6": False})
    _start(engine, f"?name={_TARGET}")
    pid: int = engine.call("GET", f"/containers/{_start(engine)}/json")["State"]["Pid"]
    return pid


def _start(engine: Engine, query: str = "") -> str:
    body = {"Image": IMAGE, "Cmd": ["sleep", "86400"], "Labels": {LABEL: "1"}, "HostConfig": {"NetworkMode": _NETWORK}}
    made: str = engine.call("POST", f"/containers/create{query}", body)["Id"]
    engine.call("POST", f"/containers/{made}/start")
    return made


def _cycle(engine: Engine) -> None:
    engine.call("DELETE", f"/containers/{_start(engine)}?force=1")


def _ask(pid: int, window: int) -> tuple[float, float]:
    """(answers a second, the 99th percentile of the seconds each took)."""
    asking = netns.enter(f"/proc/{pid}/ns/net", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with asking:
        asking.settimeout(5)
        asking.connect(_RESOLVER)
        tail = struct.pack(">5H", 0x0100, 1, 0, 0, 0) + bytes([len(_TARGET)]) + _TARGET.encode() + b"\0\0\1\0\1"
        clock = time.perf_counter
        sent: dict[bytes, float] = {}
        taken = []
        begin = clock()
        number = 0
        while (now := clock()) < begin + _SECONDS:
            while len(sent) < window:
                number += 1
                id = struct.pack(">H", number & 0xFFFF)
                sent[id] = clock()
                asking.send(id + tail)
            answer = asking.recv(512)
            taken.append(clock() - sent.pop(answer[:2]))
            assert answer[7] == 1, "not answered"
        taken.sort()
        return len(taken) / (now - begin), taken[len(taken) * 99 // 100]
