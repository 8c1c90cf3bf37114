"""A daemon that tests may break: its three processes, and everything of its that the kernel and the disk hold."""

import contextlib
import os
import re
import signal
import threading
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon import Daemon, busybox_tar, wait_until
from engine_client import Answer, Api, unframe

IMAGE = "wreck:latest"
SETTLE_SECONDS = 10.0
_SPARE = 4


class FreshApi(Api):
    """A connection for each request, closed after it: daemons come and go here, and threads use it together."""

    def __init__(self, host: str) -> None:
        self._host = host
        super().__init__(host)

    def request(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        with contextlib.closing(Api(self._host)) as api:
            return api.request(method, target, body, headers)


class Wreck:
    """One `wherry daemon` of the test's own, with a busybox image."""

    def __init__(self, *flags: str) -> None:
        self.daemon = Daemon(*flags)
        self.api = FreshApi(self.daemon.host)
        self.daemon.start()
        self.load_image(IMAGE)

    def load_image(self, name: str) -> None:
        with busybox_tar().open("rb") as tar:
            query = urllib.parse.urlencode({"fromSrc": "-", "repo": name.partition(":")[0], "changes": 'CMD ["sh"]'})
            answer = self.api.request(
                "POST", f"/images/create?{query}", tar.read(), {"Content-Type": "application/x-tar"}
            )
        assert answer.status == 200, answer.body
        assert b"errorDetail" not in answer.body, answer.body

    def run(self, *command: str, name: str = "", host: dict[str, Any] | None = None, **config: Any) -> str:
        """Start a container; its id."""
        api = self.api
        query = f"?name={name}" if name else ""
        document = {"Image": IMAGE, "Cmd": list(command), "HostConfig": host or {}, **config}
        made = api.post(f"/containers/create{query}", document)
        assert made.status == 201, made.body
        started = api.post(f"/containers/{made.json['Id']}/start")
        assert started.status == 204, started.body
        return str(made.json["Id"])

    def count_up(self, **config: Any) -> str:
        """A container that prints 1, 2, 3... until it is told to stop."""
        return self.run("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 3000; done", **config)

    def execute(self, id: str, *command: str) -> tuple[int, str]:
        """Exit code and output of a process in a container."""
        api = self.api
        made = api.post(f"/containers/{id}/exec", {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)})
        assert made.status == 201, made.body
        with api.hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
            streams = unframe(stream.rest())
        code = api.get(f"/exec/{made.json['Id']}/json").json["ExitCode"]
        return code, (streams["stdout"] + streams["stderr"]).decode(errors="replace")

    def numbers(self, id: str) -> list[int]:
        """What a container that counts has in its log."""
        answer = self.api.get(f"/containers/{id}/logs?stdout=1")
        assert answer.status == 200, answer.body
        return [int(line) for line in unframe(answer.body)["stdout"].split()]

    def state(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/containers/{id}/json").json["State"]
        return found

    def goes_on(self, id: str) -> None:
        """Wait until a container that counts has counted on."""
        last = self.numbers(id)[-1:]
        wait_until(lambda: self.numbers(id)[-1:] != last, 10, f"{id[:12]} prints more")

    # The three processes

    def pid(self, role: str) -> int:
        """The pid of "daemon", "monitor" or "logger"; 0 when there is none."""
        if role == "daemon":
            assert self.daemon.process is not None
            return self.daemon.process.pid
        lock = self.daemon.exec_root / f"{role}.lock"
        with contextlib.suppress(OSError, ValueError):
            pid = int(lock.read_text())
            if str(self.daemon.exec_root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    def kill(self, *roles: str) -> None:
        """SIGKILL, all at once; returns when they have ended."""
        pids = {role: self.pid(role) for role in roles}
        assert all(pids.values()), pids
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        for role, pid in pids.items():
            if role == "daemon":
                assert self.daemon.process is not None
                self.daemon.process.wait(10)
            else:
                wait_until(lambda pid=pid: _ended(pid), 10, f"the {role} ends")

    def wait_again(self, role: str, before: int) -> int:
        """Wait until the daemon has started another; its pid."""
        wait_until(lambda: self.pid(role) not in (0, before), 20, f"another {role}")
        return self.pid(role)

    def descriptors(self) -> dict[str, int]:
        return {role: len(os.listdir(f"/proc/{self.pid(role)}/fd")) for role in ("daemon", "monitor", "logger")}

    def open_files(self) -> list[str]:
        """What the daemon holds open, sorted; sockets and pipes without their numbers."""
        found = []
        directory = f"/proc/{self.pid('daemon')}/fd"
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"{directory}/{name}").partition(":[")[0])
        return sorted(found)

    def memory(self) -> dict[str, int]:
        """PSS in kB."""
        found = {}
        for role in ("daemon", "monitor", "logger"):
            text = Path(f"/proc/{self.pid(role)}/smaps_rollup").read_text()
            found[role] = int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
        return found

    # What there is of containers

    def containers(self) -> dict[str, str]:
        """Status by id, as the API tells."""
        return {row["Id"]: row["State"] for row in self.api.get("/containers/json?all=1").json}

    def traces(self) -> dict[str, Any]:
        """Everything that exists for containers, by place."""
        daemon = self.daemon
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        netns = f"{daemon.exec_root}/netns"
        # Made in advance, for the next containers, with a link on the bridge and without: short names.
        spare = {name for name in _names(Path(netns)) if len(name) < 64}
        return {
            "records": set(self.containers()),
            "directories": _names(daemon.data_root / "containers"),
            "snapshots": {name.partition("@")[0] for name in _names(daemon.data_root / "snapshots" / "writable")},
            "bundles": _names(daemon.exec_root / "bundles"),
            # "~": an exec's, which goes with its process or its container.
            "states": {
                n.partition(".")[0] for n in _names(daemon.exec_root / "runtime") if "~" not in n and n[0] != "."
            },
            "execs of others": {n for n in _names(daemon.exec_root / "runtime") if "~" in n and not self._lives(n)},
            "netns": _names(Path(netns)) - spare,
            "spare": len(spare) <= 2 * _SPARE,
            "links": len(_names(Path("/sys/class/net") / daemon.bridge / "brif")),
            "ports": self.published(),
            "mounts": sorted(
                m for m in mounts if str(daemon.root) in m and m != netns and not m.startswith(netns + "/")
            ),
            "netns mounts": {m.rpartition("/")[2] for m in mounts if m.startswith(netns + "/")} - spare,
            **{f"cgroup {path.parent.name}": _directories(path) for path in daemon._cgroups()},
        }

    def published(self) -> int:
        """How many elements the maps of published ports have."""
        from wherry.kernel.nftables import Nftables

        with contextlib.closing(Nftables()) as nftables:
            with contextlib.suppress(OSError):
                text = nftables.run(f"list table inet {self.daemon.table}")
                maps = re.findall(r"map (?:ports|spans)\S+ \{.*?elements = \{([^}]*)\}", text, re.DOTALL)
                return sum(part.count(" : ") for part in maps)
        return 0

    def _disagreements(self) -> list[str]:
        traces, states = self.traces(), self.containers()
        running = {id for id, status in states.items() if status in ("running", "paused")}
        linked = {id for id in running if self._network(id) != "none"}
        expected: dict[str, Any] = {
            "directories": set(states),
            "snapshots": set(states),
            "bundles": running,
            "states": running,
            "execs of others": set(),
            "netns": linked,
            "netns mounts": linked,
            "spare": True,
            "ports": sum(self._ports(id) for id in linked),
            "mounts": [],
            **{place: running for place in traces if place.startswith("cgroup ")},
        }
        wrong = [f"{place}: {traces[place]}, not {want}" for place, want in expected.items() if traces[place] != want]
        spare = traces["links"] - len(linked)
        return wrong if 0 <= spare <= _SPARE else [*wrong, f"links: {spare} beyond those of containers"]

    def _lives(self, exec_file: str) -> bool:
        with contextlib.suppress(OSError):
            pid = (self.daemon.exec_root / "runtime" / exec_file).read_text().partition(" ")[0]
            return not _ended(int(pid))
        return True  # gone meanwhile

    def _network(self, id: str) -> str:
        return str(self.api.get(f"/containers/{id}/json").json["HostConfig"]["NetworkMode"])

    def _ports(self, id: str) -> int:
        ports = self.api.get(f"/containers/{id}/json").json["NetworkSettings"]["Ports"] or {}
        return sum(len(bindings or ()) for bindings in ports.values())

    def settle(self) -> None:
        """Records, disk and kernel agree: whatever is there belongs to a container, and the running ones have all."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while wrong := self._disagreements():
            assert time.monotonic() < deadline, "\n".join([*wrong, "", self.daemon.log_text()[-3000:]])
            threading.Event().wait(0.05)

    def clear(self, *but: str) -> None:
        """Remove every container but these."""
        api = self.api
        for id in set(self.containers()) - set(but):
            answer = api.delete(f"/containers/{id}?force=1&v=1")
            assert answer.status in (204, 404), answer.body

    def close(self) -> None:
        """Take it down; what it left behind is an error."""
        daemon = self.daemon
        try:
            if daemon.process is not None and daemon.process.poll() is None:
                self.clear()
                daemon.stop()
                with contextlib.suppress(TimeoutError):
                    wait_until(lambda: not daemon.leaks(), 5, "nothing is left")
            leaks, log = daemon.leaks(), daemon.log_text()
        finally:
            stuck = daemon.remove()
        assert not leaks + stuck, "\n".join([*leaks, *stuck, "", log[-3000:]])


def _names(path: Path) -> set[str]:
    try:
        return set(os.listdir(path))
    except FileNotFoundError:
        return set()


def _directories(path: Path) -> set[str]:
    return {entry.name for entry in os.scandir(path) if entry.is_dir()}


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
