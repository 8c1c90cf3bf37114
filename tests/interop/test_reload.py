"""Settings of a running daemon: what SIGHUP takes over and refuses, and what the daemon's end means to containers."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import PEER, Daemon, busybox_tar, wait_until
from engine_client import Api

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(PEER), reason="about our own daemon"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class Configured(Daemon):
    """A daemon with a daemon.json."""

    def __init__(self) -> None:
        super().__init__()
        self.file = self.root / "daemon.json"
        self.flags = ("--config-file", str(self.file))

    def write(self, **settings: Any) -> None:
        self.file.write_text(json.dumps(settings))

    def reload(self, expected: str) -> None:
        """SIGHUP, until the log says `expected` once more."""
        assert self.process is not None
        before = self.log_text().count(expected)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log_text().count(expected) > before, 10, expected)


@pytest.fixture
def own() -> Iterator[Configured]:
    made = Configured()
    yield made
    stuck = made.remove()
    assert not stuck


def load_image(api: Api) -> None:
    query = "fromSrc=-&repo=bb&tag=latest&changes=CMD+%5B%22sh%22%5D"
    assert api.request("POST", f"/images/create?{query}", busybox_tar().read_bytes()).status == 200


def test_what_a_reload_takes_over(own: Configured) -> None:
    own.write(labels=["a=b"])
    own.start()
    with Api(own.host) as api, socket.socket(socket.AF_UNIX) as events:
        events.settimeout(20)
        events.connect(str(own.socket))
        events.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert events.recv(4096).startswith(b"HTTP/1.1 200")
        changed = {
            "labels": ["a=c", "d=e"],
            "insecure-registries": ["r.lan:5000"],
            "registry-mirrors": ["http://localhost:5001"],
            "max-concurrent-downloads": 7,
            "shutdown-timeout": 3,
            "runtimes": {"ours": {"path": "/usr/bin/wherry-runtime"}},
            "default-runtime": "ours",
            "live-restore": False,
            "debug": False,
            "mtu": 900,
        }
        own.flags = ("--config-file", str(own.file))
        own.write(**(changed | {"debug": None}))
        own.reload("needing a restart: mtu")
        document = events.recv(65536)
        event = json.loads(document[document.index(b"{") : document.rindex(b"}") + 1])
        assert (event["Type"], event["Action"]) == ("daemon", "reload")
        # As dockerd writes them.
        assert (
            event["Actor"]["Attributes"]
            | {
                "labels": '["a=c","d=e"]',
                "insecure-registries": '["r.lan:5000"]',
                "live-restore": "false",
                "max-concurrent-downloads": "7",
                "shutdown-timeout": "3",
            }
            == event["Actor"]["Attributes"]
        )
        info = api.get("/info").json
        assert event["Actor"]["ID"] == info["ID"]
        assert (info["Labels"], info["LiveRestoreEnabled"]) == (["a=c", "d=e"], False)
        assert (info["DefaultRuntime"], sorted(info["Runtimes"])) == ("ours", ["ours", "wherry"])
        assert "r.lan:5000" in info["RegistryConfig"]["IndexConfigs"]
        assert info["RegistryConfig"]["Mirrors"] == ["http://localhost:5001"]
        load_image(api)
        api.create("c1", Image="bb")
        assert api.get("/containers/c1/json").json["HostConfig"]["Runtime"] == "ours"
        refused = api.post("/containers/create", {"Image": "bb", "HostConfig": {"Runtime": "crun"}})
        assert (refused.status, refused.message) == (400, "unknown or invalid runtime name: crun")
        assert api.delete("/containers/c1").status == 204


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"labels": ["x=y"], "debug": 1}', "debug must be true or false"),
        ('{"labels": ["x=y"], "exec-root": "/other"}', "specified both as a flag and in the configuration file"),
        ('{"labels": ["x=y"], "runtimes": {"crun": {"path": "/usr/bin/crun"}}}', "cannot be used"),
        ('{"labels": ["x=y"], "authorization-plugins": ["wt-none"]}', 'plugin \\"wt-none\\" not found'),
        ('{"labels": ["x=y"]', "invalid JSON"),
    ],
)
def test_of_a_bad_file_nothing_is_taken_over(own: Configured, text: str, message: str) -> None:
    own.write(labels=["a=b"])
    own.start()
    own.file.write_text(text)
    own.reload("Error reconfiguring the daemon")
    assert message in own.log_text()
    with Api(own.host) as api:
        assert api.get("/info").json["Labels"] == ["a=b"]


def test_without_live_restore_containers_end_with_the_daemon(own: Configured) -> None:
    own.write(**{"live-restore": False})
    own.start()
    with Api(own.host) as api:
        load_image(api)
        script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
        api.run("plain", Image="bb", Cmd=["sh", "-c", script])
        api.run(
            "always", Image="bb", Cmd=["sleep", "1000"], HostConfig={"RestartPolicy": {"Name": "always"}}, StopTimeout=0
        )
        wait_until(lambda: b"ready" in api.get("/containers/plain/logs?stdout=1").body, 10, "the script is ready")
        pids = [api.get(f"/containers/{name}/json").json["State"]["Pid"] for name in ("plain", "always")]
    own.stop()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    own.start()
    with Api(own.host) as api:
        state = api.get("/containers/plain/json").json["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 3)
        assert api.get("/containers/plain/logs?stdout=1&tail=1").body.endswith(b"asked\n")
        # Its restart policy brings it back, as dockerd's does.
        wait_until(lambda: api.get("/containers/always/json").json["State"]["Running"], 10, "it runs again")
        for name in ("plain", "always"):
            assert api.delete(f"/containers/{name}?force=1").status == 204


def test_what_the_daemon_decides_for_containers_that_say_nothing(own: Configured) -> None:
    profile = own.root / "seccomp.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    own.write(
        **{
            "no-new-privileges": True,
            "seccomp-profile": str(profile),
            "default-ipc-mode": "shareable",
            "default-cgroupns-mode": "private",
            "host-gateway-ip": "192.0.2.9",
        }
    )
    own.start()
    script = "grep -q '^192.0.2.9.*h$' /etc/hosts && grep NoNewPrivs /proc/self/status; mkdir /d && echo made"
    with Api(own.host) as api:
        load_image(api)
        for name, host, expected in (
            ("plain", {}, b"NoNewPrivs:\t1\n"),
            ("own", {"SecurityOpt": ["no-new-privileges=false", "seccomp=unconfined"]}, b"NoNewPrivs:\t0\nmade\n"),
            ("all", {"Privileged": True}, b"NoNewPrivs:\t1\nmade\n"),
        ):
            api.run(
                name,
                Image="bb",
                Cmd=["sh", "-c", script],
                Tty=True,
                HostConfig={**host, "ExtraHosts": ["h:host-gateway"]},
            )
            api.wait(name)
            output = api.get(f"/containers/{name}/logs?stdout=1").body.replace(b"\r", b"")
            assert output.startswith(expected), name
            found = api.get(f"/containers/{name}/json").json["HostConfig"]
            cgroups = "host" if name == "all" else "private"
            assert (found["IpcMode"], found["CgroupnsMode"]) == ("shareable", cgroups)
            assert api.delete(f"/containers/{name}").status == 204


def test_validate(own: Configured, capfd: pytest.CaptureFixture[str]) -> None:
    from wherry.daemon.process import main

    own.write(labels=["a=b"])
    assert main(["--validate", "--config-file", str(own.file)]) == 0
    assert capfd.readouterr().out == "configuration OK\n"
    own.write(nope=1)
    assert main(["--validate", "--config-file", str(own.file)]) == 1
    assert (
        f"unable to configure the daemon with file {own.file}: the following directives don't match any configuration "
        "option: nope" in capfd.readouterr().err
    )
