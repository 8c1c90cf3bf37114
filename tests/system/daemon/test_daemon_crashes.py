"""SIGKILL to the daemon, the monitor, the logger, alone and together, at any moment: what runs goes on."""

import contextlib
import http.client
import os
import random
import threading
from collections.abc import Callable

import pytest
from wreck import IMAGE, Wreck, wait_until

from engine_client import unframe

pytestmark = pytest.mark.root

ROUNDS = int(os.environ.get("WHERRY_CRASHES", "8"))
PORT = {"ExposedPorts": {"80/tcp": {}}, "host": {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}}


class Load:
    """Clients that keep every part of the engine busy until it dies; `done` counts what they asked for."""

    def __init__(self, wreck: Wreck, seed: int) -> None:
        self.wreck = wreck
        self.done = 0
        self._stop = threading.Event()
        self._step = threading.Condition()
        works: list[Callable[[random.Random], None]] = [self._live, self._live, self._exec, self._images]
        self._threads = [
            threading.Thread(target=self._loop, args=(work, random.Random(f"{seed} {i}")))
            for i, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        with self._step:
            assert self._step.wait_for(lambda: self.done >= count, 30), f"only {self.done} requests answered"

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _loop(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError, ValueError, TypeError):
                work(chance)

    def _ask(self, method: str, target: str, document: object = None) -> str:
        api = self.wreck.api
        answer = api.post(target, document) if method == "POST" else api.request(method, target)
        with self._step:
            self.done += 1
            self._step.notify_all()
        return str(answer.json.get("Id", "")) if answer.body[:1] == b"{" else ""

    def _live(self, chance: random.Random) -> None:
        """A container's whole life, of a random kind."""
        network = chance.choice(["bridge", "none", "bridge"])
        host = {"NetworkMode": network, "AutoRemove": chance.random() < 0.3, "Binds": ["kept:/kept"]}
        if network == "bridge":
            host["PortBindings"] = {"80/tcp": [{"HostPort": ""}]}
        command = chance.choice([["true"], ["sleep", "100"], ["sh", "-c", "echo x; exit 3"], ["/nosuch"]])
        document = {"Image": IMAGE, "Cmd": command, "HostConfig": host, "Volumes": {"/scratch": {}}}
        id = self._ask("POST", "/containers/create", {**document, "ExposedPorts": {"80/tcp": {}}})
        self._ask("POST", f"/containers/{id}/start")
        for _ in range(chance.randrange(3)):
            self._ask(
                "POST", f"/containers/{id}/{chance.choice(['pause', 'unpause', 'restart?t=0', 'kill', 'stop?t=0'])}"
            )
        if chance.random() < 0.8:
            self._ask("DELETE", f"/containers/{id}?force=1&v=1")

    def _exec(self, chance: random.Random) -> None:
        id = next(id for id, status in self.wreck.containers().items() if status == "running")
        command = chance.choice([["true"], ["sleep", "100"], ["sh", "-c", "echo x"]])
        exec_id = self._ask("POST", f"/containers/{id}/exec", {"Cmd": command})
        self._ask("POST", f"/exec/{exec_id}/start", {"Detach": True})

    def _images(self, chance: random.Random) -> None:
        name = f"other{chance.randrange(3)}"
        if chance.random() < 0.3:
            self.wreck.load_image(f"{name}:latest")
            self._ask("GET", "/_ping")
        else:
            self._ask("POST", f"/images/{IMAGE}/tag?repo={name}")
            self._ask("DELETE", f"/images/{name}?force=1")


def _check_whole(wreck: Wreck, id: str) -> None:
    """No gap in what a container that counts has in its log, and nothing twice."""
    found = wreck.numbers(id)
    assert found == list(range(1, len(found) + 1))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_daemon_killed_at_work(wreck: Wreck, seed: int) -> None:
    chance = random.Random(seed)
    counting = wreck.count_up(**PORT)
    before = wreck.state(counting)
    load = Load(wreck, seed)
    try:
        load.wait_for(chance.randrange(5, 60))
        threading.Event().wait(chance.random() / 50)
        wreck.kill("daemon")
    finally:
        load.stop()
    volumes = wreck.daemon.data_root / "volumes"
    wreck.daemon.start()
    after = wreck.state(counting)
    assert (after["Pid"], after["Status"], after["StartedAt"]) == (before["Pid"], "running", before["StartedAt"])
    wreck.goes_on(counting)
    _check_whole(wreck, counting)
    wreck.settle()
    # What is recorded can be used.
    api = wreck.api
    for id, status in wreck.containers().items():
        if status in ("created", "exited"):
            assert api.post(f"/containers/{id}/start").status in (204, 400), api.get(f"/containers/{id}/json").body
    assert wreck.execute(counting, "echo", "still there") == (0, "still there\n")
    wreck.clear(counting)
    wreck.settle()
    wait_until(lambda: not [*volumes.glob(".trash/*")], 5, "volumes are removed")
    assert {path.name for path in volumes.iterdir()} - {".trash"} == {"kept"}
    for place in ("snapshots/incoming", "snapshots/trash"):
        wait_until(lambda place=place: not [*wreck.daemon.data_root.glob(f"{place}/*")], 5, f"{place} is empty")
    assert api.post(f"/containers/{counting}/stop?t=0").status == 204
    _check_whole(wreck, counting)


def test_exits_while_there_is_no_daemon(wreck: Wreck) -> None:
    """Codes, restart policies and --rm are dealt with by the next one."""
    gate = ["sh", "-c", "while [ ! -e /kept/go ]; do usleep 10000; done; echo bye; exit 7"]
    kept = {"Binds": ["gate:/kept"]}
    plain = wreck.run(*gate, host=kept)
    removed = wreck.run(*gate, host={**kept, "AutoRemove": True})
    again = wreck.run(*gate, host={**kept, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}})
    pids = [wreck.state(id)["Pid"] for id in (plain, removed, again)]
    wreck.kill("daemon")
    (wreck.daemon.data_root / "volumes" / "gate" / "_data" / "go").touch()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10, "all end")
    wreck.daemon.start()
    api = wreck.api
    assert api.post(f"/containers/{plain}/wait").json["StatusCode"] == 7
    wait_until(lambda: api.get(f"/containers/{removed}/json").status == 404, 10, "--rm removes")
    log = f"/containers/{again}/logs?stdout=1"
    wait_until(lambda: unframe(api.get(log).body)["stdout"] == b"bye\nbye\n", 10, "the one more try")
    wait_until(lambda: wreck.state(again)["Status"] == "exited", 10, "the last try ends")
    assert api.get(f"/containers/{again}/json").json["RestartCount"] == 1
    api.delete("/volumes/gate?force=1")


def test_upgrade(wreck: Wreck) -> None:
    """SIGTERM and another start: containers run on, their ports stay published, policies hold."""
    serve = ["sh", "-c", "while :; do echo hello | nc -l -p 80; done"]
    served = wreck.run(*serve, **PORT)
    counting = wreck.count_up()
    kept = wreck.run("sleep", "100", host={"RestartPolicy": {"Name": "always"}})
    stopped = wreck.run("sleep", "100", host={"RestartPolicy": {"Name": "unless-stopped"}})
    api = wreck.api
    for id in (kept, stopped):
        assert api.post(f"/containers/{id}/stop?t=0").status == 204
    port = int(api.get(f"/containers/{served}/json").json["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
    wait_until(lambda: _hears(port), 10, "the port answers")
    wreck.daemon.stop()
    wait_until(lambda: _hears(port), 10, "the port answers without a daemon")
    wreck.daemon.start()
    wait_until(lambda: _hears(port), 10, "the port answers with the next daemon")
    wreck.goes_on(counting)
    _check_whole(wreck, counting)
    # docker's rule: what was stopped by hand and is to run "always" starts with the daemon.
    wait_until(lambda: wreck.state(kept)["Status"] == "running", 10, "always")
    assert wreck.state(stopped)["Status"] == "exited"
    wreck.settle()


def _hears(port: int) -> bool:
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(10) == b"hello\n"
    except OSError:
        return False


@pytest.mark.parametrize("times", [1, 2])
def test_monitor_killed(wreck: Wreck, times: int) -> None:
    counting = wreck.count_up()
    ending = wreck.run("sh", "-c", "trap 'exit 42' TERM; while :; do usleep 10000; done")
    api = wreck.api
    with api.hijack(f"/containers/{counting}/attach?stream=1&stdout=1") as attached:
        for _ in range(times):
            before = wreck.pid("monitor")
            wreck.kill("monitor")
            wreck.wait_again("monitor", before)
        attached.receive(b"\n")
        assert wreck.execute(counting, "echo", "hello") == (0, "hello\n")
        new = wreck.run("sh", "-c", "exit 5")
        assert api.post(f"/containers/{new}/wait").json["StatusCode"] == 5
        assert api.post(f"/containers/{ending}/stop?t=10").status == 204
        assert wreck.state(ending)["ExitCode"] == 42
        wreck.goes_on(counting)
        assert api.post(f"/containers/{counting}/stop?t=0").status == 204
        assert wreck.state(counting)["ExitCode"] == 137
        attached.rest()
    _check_whole(wreck, counting)


def test_logger_killed(wreck: Wreck) -> None:
    counting = wreck.count_up()
    typing = wreck.run("cat", OpenStdin=True, Tty=True)
    api = wreck.api
    for _ in range(3):
        before = wreck.pid("logger")
        wreck.goes_on(counting)
        wreck.kill("logger")
        wreck.wait_again("logger", before)
        wreck.goes_on(counting)
    assert wreck.state(counting)["Status"] == "running"
    found = wreck.numbers(counting)
    # At most the lines that were read and not yet written: these come one at a time.
    assert found == sorted(set(found))
    assert len(found) >= found[-1] - 3
    with api.hijack(f"/containers/{typing}/attach?stream=1&stdin=1&stdout=1") as attached:
        attached.send(b"words\n")
        attached.receive(b"words\r\nwords\r\n")
    with api.hijack(f"/containers/{counting}/attach?stream=1&stdout=1") as attached:
        attached.receive(b"\n")
    assert api.post(f"/containers/{counting}/stop?t=0").status == 204


def test_logger_killed_while_input_waits(wreck: Wreck) -> None:
    """A container with an open standard input does not see its end, and is still read."""
    id = wreck.run("cat", OpenStdin=True)
    api = wreck.api
    with api.hijack(f"/containers/{id}/attach?stream=1&stdin=1&stdout=1") as attached:
        attached.send(b"one\n")
        attached.receive(b"one\n")
    before = wreck.pid("logger")
    wreck.kill("logger")
    wreck.wait_again("logger", before)
    with api.hijack(f"/containers/{id}/attach?stream=1&stdin=1&stdout=1") as attached:
        attached.send(b"two\n")
        attached.receive(b"two\n")


@pytest.mark.parametrize("roles", [("monitor", "logger"), ("daemon", "monitor"), ("daemon", "logger")])
def test_two_killed_at_once(wreck: Wreck, roles: tuple[str, str]) -> None:
    counting = wreck.count_up(**PORT)
    before = {role: wreck.pid(role) for role in roles}
    wreck.kill(*roles)
    if "daemon" in roles:
        wreck.daemon.start()
    for role in roles:
        wreck.wait_again(role, before[role])
    wreck.goes_on(counting)
    found = wreck.numbers(counting)
    assert found == sorted(set(found))
    assert "logger" in roles or found == list(range(1, len(found) + 1))
    wreck.settle()
    assert wreck.execute(counting, "echo", "hello") == (0, "hello\n")
    assert wreck.api.post(f"/containers/{counting}/stop?t=0").status == 204
    assert wreck.state(counting)["ExitCode"] == 137


def test_one_after_the_other(wreck: Wreck) -> None:
    """What the monitor kept for the logger is kept again after its own death."""
    counting = wreck.count_up()
    for role in ("monitor", "logger", "monitor", "logger"):
        before = wreck.pid(role)
        wreck.kill(role)
        wreck.wait_again(role, before)
        wreck.goes_on(counting)
    assert wreck.state(counting)["Status"] == "running"


def test_nothing_is_left_open_by_crashes(wreck: Wreck) -> None:
    wreck.run("true")
    wreck.clear()
    wreck.settle()
    before, files = wreck.descriptors(), wreck.open_files()
    for _ in range(3):
        id = wreck.count_up(**PORT)
        pid = wreck.pid("logger")
        wreck.kill("logger")
        wreck.wait_again("logger", pid)
        wreck.goes_on(id)
        wreck.clear()
        wreck.settle()
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: _no_more(wreck.descriptors(), before), 10, "no more than before")
    now = wreck.descriptors()
    assert _no_more(now, before), f"{now}, not more than {before}: {files} became {wreck.open_files()}"


def _no_more(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[role] <= before[role] for role in before)
