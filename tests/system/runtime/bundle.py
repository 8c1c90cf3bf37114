"""Bundles for the runtime's tests, and a runtime to put them in."""

import os
import tarfile
import uuid
from pathlib import Path
from typing import Any

from daemon import busybox_tar
from wherry.errors import NotFound
from wherry.kernel import processes
from wherry.runtime.container import Runtime
from wherry.runtime.launch import Launched, drive
from wherry.spec import fastjson

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
DEFAULT_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_KILL",
    "CAP_MKNOD",
]


def mount(destination: str, kind: str, *options: str, source: str | None = None) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def config(*args: str, **process: Any) -> dict[str, Any]:
    """A configuration as engines write it; `process` overrides members of process."""
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), DEFAULT_CAPABILITIES)
    return {
        "ociVersion": "1.2.0",
        "process": {
            "args": list(args),
            "cwd": "/",
            "env": ["PATH=/bin:/usr/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": capabilities,
            **process,
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777"),
            mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro"),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/acpi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


# Of this process: test processes that run at once must not remove it under each other.
CGROUPS = f"/wherry-test-{os.getpid()}"


class Box:
    """A runtime of its own with a busybox root file system; containers are driven in this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rootfs = path / "bundle" / "rootfs"
        self.rootfs.mkdir(parents=True)
        with tarfile.open(busybox_tar()) as tar:
            tar.extractall(self.rootfs, filter="fully_trusted")
        self.runtime = Runtime(str(path / "state"))
        self.made: list[str] = []

    def write(self, document: dict[str, Any], identifier: str) -> None:
        document["linux"].setdefault("cgroupsPath", f"{CGROUPS}/{identifier}")
        (self.path / "bundle" / "config.json").write_text(fastjson.dumps(document))

    def new_id(self) -> str:
        identifier = f"wt-{uuid.uuid4().hex[:12]}"
        self.made.append(identifier)
        return identifier

    def start(
        self, document: dict[str, Any], stdio: tuple[int, int, int] = (-1, -1, -1), **more: Any
    ) -> tuple[str, Launched]:
        identifier = self.new_id()
        self.write(document, identifier)
        layers = more.pop("layers", ())
        return identifier, drive(self.runtime.run(identifier, str(self.path / "bundle"), layers, stdio, **more))

    def output(self, document: dict[str, Any], **more: Any) -> str:
        """What a container prints on both outputs until it ends; the status, when it is not 0, at the end."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            identifier, launched = self.start(document, (-1, writing, writing), **more)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        text = read_all(reading)
        status = self.wait(identifier, launched)
        return text + (f"status {status}\n" if status else "")

    def run(self, *args: str, **process: Any) -> str:
        return self.output(config(*args, **process))

    def wait(self, identifier: str, launched: Launched) -> int:
        status = processes.shell_status(os.waitpid(launched.process.pid, 0)[1])
        os.close(launched.pidfd)
        self.runtime.finish(identifier, status)
        return status

    def exec(self, identifier: str, *args: str, **process: Any) -> str:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        document = config(*args, **process)["process"]
        try:
            launched = drive(self.runtime.exec(identifier, "e1", document, (-1, writing, writing)))
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        text = read_all(reading)
        status = processes.shell_status(os.waitpid(launched.process.pid, 0)[1])
        os.close(launched.pidfd)
        return text + (f"status {status}\n" if status else "")

    def close(self) -> None:
        for identifier in self.made:
            try:
                drive(self.runtime.delete(identifier, force=True))
            except NotFound:
                continue

    def script(self, name: str, text: str) -> None:
        path = self.rootfs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


def read_all(fd: int) -> str:
    with os.fdopen(fd, "rb") as file:
        return file.read().decode(errors="replace")
