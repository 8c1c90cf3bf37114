"""Many containers come and go, 16 at once: everything is as before. WHERRY_SOAK=1000 for the long run (-s: figures)."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from wreck import IMAGE, Wreck, wait_until

from engine_client import Api

pytestmark = pytest.mark.root

CYCLES = int(os.environ.get("WHERRY_SOAK", "200"))
AT_ONCE = 16
# A heap that has been full keeps some pages; a leak of 1 KB a container would be 1 MB in the long run.
GROWTH_KB = {"daemon": 5000, "monitor": 700, "logger": 300}


def _cycle(wreck: Wreck, number: int) -> None:
    with closing(Api(wreck.daemon.host)) as api:
        host: dict[str, Any] = {"Binds": ["shared:/shared"]}
        if number % 4 == 0:
            host["PortBindings"] = {"80/tcp": [{"HostPort": ""}]}
        if number % 4 == 1:
            host["NetworkMode"] = "none"
        config = {"Cmd": ["sh", "-c", "echo x; exec sleep 1000"], "Volumes": {"/scratch": {}}, "Tty": number % 8 == 2}
        id = api.run(f"cycle-{number}", Image=IMAGE, HostConfig=host, ExposedPorts={"80/tcp": {}}, **config)
        if number % 3 == 0:
            exec_id = api.post(f"/containers/{id}/exec", {"Cmd": ["true"]}).json["Id"]
            api.post(f"/exec/{exec_id}/start", {"Detach": True})
        if number % 5 == 0:
            assert api.post(f"/containers/{id}/stop?t=0").status == 204
        answer = api.delete(f"/containers/{id}?force=1&v=1")
        assert answer.status == 204, answer.body


def _all(wreck: Wreck, first: int, count: int) -> float:
    """Containers a second."""
    started = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(partial(_cycle, wreck), range(first, first + count)))
    return count / (time.monotonic() - started)


def test_cycles_leave_everything_as_it_was(wreck: Wreck) -> None:
    _all(wreck, 1_000_000, 96)  # whatever is made once and kept
    wreck.settle()
    found = _everything(wreck)
    before, memory = _settled_descriptors(wreck), wreck.memory()
    rate = _all(wreck, 0, CYCLES)
    wreck.settle()
    wait_until(lambda: not _more(wreck.descriptors(), before), 10, f"{wreck.descriptors()}, not more than {before}")
    after = wreck.memory()
    print(
        f"\n{CYCLES} cycles, {AT_ONCE} at once: {rate:.0f} a second; descriptors {before} then {wreck.descriptors()};"
    )
    print(f"PSS kB {memory} then {after}")
    assert _everything(wreck) == found
    assert not [role for role in after if after[role] - memory[role] > GROWTH_KB[role]], (memory, after)


def _more(now: dict[str, int], before: dict[str, int]) -> bool:
    return any(now[role] > before[role] for role in before)


def _settled_descriptors(wreck: Wreck) -> dict[str, int]:
    wait_until(lambda: wreck.descriptors()["daemon"] < 60, 10, "connections are closed")
    return wreck.descriptors()


def _everything(wreck: Wreck) -> dict[str, Any]:
    """All that the kernel and the disk hold for containers, and the volumes."""
    volumes = wreck.daemon.data_root / "volumes"
    wait_until(lambda: not [*volumes.glob(".trash/*")], 10, "volumes are removed")
    traces = wreck.traces()
    del traces["links"]  # with those made in advance; `settle` has looked at them
    names = {path.name for path in volumes.iterdir()}
    return {**traces, "volumes": names, "processes": len(wreck.daemon.processes())}
