"""Whole containers by `wherry-runtime` on pure cgroup v2: a program for a virtual machine (test_cgroup_v2_vm.py).

Expects a busybox root file system at /busybox.tar. Prints one JSON line per check, as contract/cgroup_suite.py does.
"""

import copy
import json
import os
import subprocess
import tarfile
import traceback
from pathlib import Path
from typing import Any

BUNDLE = Path("/tmp/bundle")
MAIN = "import sys; sys.path.insert(0, '/wherry'); from wherry.runtime.cli import main; sys.exit(main())"
Path("/tmp/wherry-runtime").write_text(MAIN)
COMMAND = ["python3", "-IS", "/tmp/wherry-runtime", "--root", "/run/wr"]
EXAMPLE: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "capabilities": {}},
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "cgroupsPath": "/containers/c1",
    },
}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=60, check=False
    )


def write(resources: dict[str, Any], *args: str) -> None:
    document = copy.deepcopy(EXAMPLE)
    document["process"]["args"] = list(args)
    sets = ("bounding", "effective", "permitted")
    document["process"]["capabilities"] = {name: ["CAP_MKNOD", "CAP_DAC_OVERRIDE"] for name in sets}
    document["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}], **resources}
    (BUNDLE / "config.json").write_text(json.dumps(document))


def run(resources: dict[str, Any], script: str) -> subprocess.CompletedProcess[str]:
    write(resources, "sh", "-c", script)
    done = command("run", "--bundle", str(BUNDLE), "c1")
    assert not os.path.exists("/sys/fs/cgroup/containers/c1"), "the cgroup is still there"
    return done


def check_cgroup_namespace_and_mount() -> None:
    done = run(
        {"memory": {"limit": 33554432}}, "cat /proc/self/cgroup /sys/fs/cgroup/memory.max; mkdir /sys/fs/cgroup/x"
    )
    assert done.stdout == "0::/\n33554432\n", done
    assert "Read-only" in done.stderr, done


def check_memory_limit() -> None:
    done = run({"memory": {"limit": 16 << 20, "swap": 16 << 20}}, "x=a; while :; do x=$x$x; done")
    assert done.returncode == 137, done


def check_pids_limit() -> None:
    done = run({"pids": {"limit": 5}}, "for i in 1 2 3 4 5 6; do sleep 1 & done; wait")
    assert "can't fork" in done.stderr, done


def check_device_rules() -> None:
    """On ttyS0, which needs no capability to be opened."""
    script = (
        "mknod /serial c 4 64; true </serial && echo read; true >/serial && echo written; head -c 2 /dev/zero | wc -c"
    )
    rule = {"allow": True, "type": "c", "major": 4, "minor": 64}
    for access, expected in (("", ["2"]), ("r", ["read", "2"]), ("rw", ["read", "written", "2"])):
        rules = [{"allow": False, "access": "rwm"}, *([{**rule, "access": access}] if access else [])]
        done = run({"devices": rules}, script)
        assert done.stdout.split() == expected, done
        assert ("not permitted" in done.stderr) == (access != "rw"), done
        (BUNDLE / "rootfs/serial").unlink()


def check_a_detached_container() -> None:
    write({"cpu": {"shares": 1024}}, "sleep", "60")
    null = subprocess.DEVNULL
    started = [*COMMAND, "run", "--detach", "--bundle", str(BUNDLE), "c1"]
    subprocess.run(started, stdin=null, stdout=null, stderr=null, timeout=60, check=True)
    group = Path("/sys/fs/cgroup/containers/c1")
    assert (group / "cpu.weight").read_text().strip() == "100"
    done = command("exec", "c1", "cat", "/proc/self/cgroup")
    assert done.stdout == "0::/\n", done
    assert command("pause", "c1").returncode == 0
    assert "frozen 1" in (group / "cgroup.events").read_text()
    assert json.loads(command("state", "c1").stdout)["status"] == "paused"
    assert command("resume", "c1").returncode == 0
    assert command("update", "--memory", "48m", "c1").returncode == 0
    event = json.loads(command("events", "--stats", "c1").stdout)
    assert event["data"]["memory"]["usage"]["limit"] == 48 << 20, event
    done = command("delete", "--force", "c1")
    assert done.returncode == 0, done
    assert not group.exists()


if __name__ == "__main__":
    (BUNDLE / "rootfs").mkdir(parents=True)
    with tarfile.open("/busybox.tar") as tar:
        tar.extractall(BUNDLE / "rootfs", filter="fully_trusted")
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            failure = None
            try:
                check()
            except Exception:  # noqa: BLE001 - reported
                failure = traceback.format_exc().encode().hex()
            print("\n" + json.dumps({"check": name, "failure": failure}), flush=True)
