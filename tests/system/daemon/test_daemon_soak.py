"""Sixteen clients do to their containers what they like while the daemon is killed again and again.

Nothing that was promised is lost, nothing is left over, and memory stays flat. WHERRY_SOAK_SECONDS=3600 and
WHERRY_SOAK_KILL_SECONDS=60 for the long run (-s: figures).
"""

import contextlib
import http.client
import os
import random
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from wreck import IMAGE, Wreck

from engine_client import Answer, Api, unframe

pytestmark = pytest.mark.root

SECONDS = float(os.environ.get("WHERRY_SOAK_SECONDS", "12"))
KILL_SECONDS = float(os.environ.get("WHERRY_SOAK_KILL_SECONDS", "4"))
WORKERS = 16
_LEAST, _MOST = 3, 6
GROWTH_KB = {"monitor": 1500, "logger": 1500}


class Gone(Exception):
    """The daemon died before it answered: what was asked for may have happened or not."""


class Worker:
    """One client with containers of its own; what it was told is what it insists on."""

    def __init__(self, wreck: Wreck, number: int, until: float) -> None:
        self.wreck, self.number, self.until = wreck, number, until
        self.chance = random.Random(number)
        self.known: dict[str, str] = {}  # name: what it prints
        self.unsure: set[str] = set()
        self.done = self.lost_answers = 0

    def run(self) -> None:
        while time.monotonic() < self.until:
            try:
                self.step()
                self.done += 1
            except Gone:
                self.lost_answers += 1
                threading.Event().wait(0.1)

    def step(self) -> None:
        if len(self.known) < _LEAST or (len(self.known) < _MOST and self.chance.random() < 0.3):
            self.create()
            return
        name = self.chance.choice(sorted(self.known))
        self.chance.choice([self.execute, self.read_log, self.inspect, self.kill, self.restart, self.remove])(name)

    def create(self) -> None:
        name, word = f"soak-{self.number}-{secrets.token_hex(4)}", secrets.token_hex(8)
        host: dict[str, Any] = {"NetworkMode": self.chance.choice(["none", "bridge"]), "Binds": ["soak:/kept"]}
        if self.chance.random() < 0.2:
            host["PortBindings"] = {"80/tcp": [{"HostPort": ""}]}
        config = {
            "Cmd": ["sh", "-c", f"echo {word}; exec sleep 3600"],
            "Volumes": {"/scratch": {}},
            "StopSignal": "KILL",
        }
        document = {"Image": IMAGE, "HostConfig": host, "ExposedPorts": {"80/tcp": {}}, **config}
        self.unsure.add(name)
        self.expect(self.ask("POST", f"/containers/create?name={name}", document), 201)
        # Known from the answer on: whatever comes, it must be there.
        self.unsure.discard(name)
        self.known[name] = word
        self.expect(self.ask("POST", f"/containers/{name}/start"), 204, 304)

    def execute(self, name: str) -> None:
        made = self.ask("POST", f"/containers/{name}/exec", {"Cmd": ["echo", "in"], "AttachStdout": True})
        if made.status == 409:
            return  # it does not run
        self.expect(made, 201)
        try:
            with Api(self.wreck.daemon.host).hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
                stream.rest()
        except (OSError, AssertionError, http.client.HTTPException):
            raise Gone from None

    def read_log(self, name: str) -> None:
        self.ask("POST", f"/containers/{name}/start")
        answer = self.ask("GET", f"/containers/{name}/logs?stdout=1")
        self.expect(answer, 200)
        printed = unframe(answer.body)["stdout"].decode().split()
        assert set(printed) <= {self.known[name]}, (name, printed)

    def inspect(self, name: str) -> None:
        self.expect(self.ask("GET", f"/containers/{name}/json"), 200)

    def kill(self, name: str) -> None:
        self.expect(self.ask("POST", f"/containers/{name}/kill"), 204, 409)

    def restart(self, name: str) -> None:
        self.expect(self.ask("POST", f"/containers/{name}/restart?t=0"), 204)

    def remove(self, name: str) -> None:
        del self.known[name]
        self.unsure.add(name)
        self.expect(self.ask("DELETE", f"/containers/{name}?force=1&v=1"), 204)
        self.unsure.discard(name)

    def ask(self, method: str, target: str, document: object = None) -> Answer:
        try:
            api = self.wreck.api
            return api.post(target, document) if method == "POST" else api.request(method, target)
        except (OSError, http.client.HTTPException):
            raise Gone from None

    def expect(self, answer: Answer, *statuses: int) -> None:
        if answer.status == 503:
            raise Gone  # it is about to be killed or has just started
        assert answer.status in statuses, (self.number, answer.status, answer.body)


def test_nothing_is_lost_and_nothing_left(wreck: Wreck) -> None:
    wreck.run("true")
    wreck.clear()
    until = time.monotonic() + SECONDS
    workers = [Worker(wreck, number, until) for number in range(WORKERS)]
    memory: list[dict[str, int]] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        running = [pool.submit(worker.run) for worker in workers]
        kills = 0
        while time.monotonic() + KILL_SECONDS < until and not any(future.done() for future in running):
            threading.Event().wait(KILL_SECONDS)
            with contextlib.suppress(OSError, AttributeError, TypeError):
                memory.append(wreck.memory())
            wreck.kill("daemon")
            wreck.daemon.start()
            kills += 1
        for future in running:
            future.result()
    _insist(wreck, workers)
    wreck.settle()
    done, lost = sum(worker.done for worker in workers), sum(worker.lost_answers for worker in workers)
    print(f"\n{done} operations, {lost} without an answer, {kills} kills; PSS kB {memory[:1]} ... {memory[-3:]}")
    assert done > WORKERS
    settled = memory[len(memory) // 3 :]
    for role, growth in GROWTH_KB.items():
        if len(settled) >= 10:
            assert settled[-1][role] - settled[0][role] < growth, memory


def _insist(wreck: Wreck, workers: list[Worker]) -> None:
    """What is there is what was promised, but for what got no answer."""
    listed = wreck.api.get("/containers/json?all=1").json
    there = {row["Names"][0].removeprefix("/") for row in listed}
    known = {name for worker in workers for name in worker.known}
    unsure = {name for worker in workers for name in worker.unsure}
    assert known - there == set()
    assert there - known - unsure == set()
