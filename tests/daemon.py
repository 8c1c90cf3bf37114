"""A daemon for the tests: in scratch roots of its own, so that every kernel-wide name is its own too.

With WHERRY_TEST_PEER=unix:///... the same tests run against that engine (a dockerd) instead; WHERRY_TEST_PEER_ADDRESS
is then the address at which its published ports are reached.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PEER = os.environ.get("WHERRY_TEST_PEER", "")
PEER_ADDRESS = os.environ.get("WHERRY_TEST_PEER_ADDRESS", "127.0.0.1")
CACHE = Path(os.environ.get("WHERRY_TEST_CACHE", "/var/tmp/wherry-test-cache"))
_START_SECONDS = 30.0
_CONTROLLERS = Path("/sys/fs/cgroup")


def wait_until(check: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something of another process that gives no event."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class Daemon:
    """One `wherry daemon` and everything it may leave behind."""

    def __init__(self, *flags: str) -> None:
        # Short: a unix socket's path holds 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="wt-", dir="/var/tmp"))
        self.exec_root = self.root / "run"
        self.data_root = self.root / "data"
        self.socket = self.root / "api.sock"
        self.log = self.root / "log"
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None
        suffix = hashlib.sha256(str(self.exec_root).encode()).hexdigest()[:8]
        # Two daemons that start at once must not choose the same addresses.
        self.bip = f"10.{128 + int(suffix[:2], 16) // 2}.{int(suffix[2:4], 16)}.1/24"
        self.bridge, self.table, self.cgroup = f"wr-{suffix}", f"wherry_{suffix}", f"wherry-{suffix}"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def command(self) -> list[str]:
        """Its command line."""
        return [
            *(sys.executable, "-m", "wherry.daemon", "--data-root", str(self.data_root)),
            *("--exec-root", str(self.exec_root), "-H", self.host, "--debug", "--bip", self.bip, *self.flags),
        ]

    def start(self) -> None:
        """Start it; returns when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_until(self._answers, _START_SECONDS, "the daemon answers")
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended with {self.process.returncode}:\n{self.log_text()[-4000:]}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_START_SECONDS)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
                return probe.recv(64).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: int) -> int:
        """Send a signal to the daemon itself and wait for its end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def stop(self) -> None:
        """Stop it in order, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)

    def processes(self) -> dict[int, str]:
        """Every process that belongs to this daemon: those that name its roots, and their descendants' shims."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if str(self.exec_root) in command:
                        found[int(entry.name)] = command
        return found

    def leaks(self) -> list[str]:
        """What is left of containers in the kernel and in the roots when no container is left.

        The directory of network namespaces is itself a mount (a shared one, as `ip netns` makes it) and stays.
        """
        mounts = [line.split()[4] for line in _lines("/proc/self/mountinfo")]
        found = [f"mount {path}" for path in mounts if str(self.root) in path and path != f"{self.exec_root}/netns"]
        for name in ("bundles", "netns", "runtime"):
            # What begins with a dot is a cache.
            found += [f"left {path}" for path in _entries(self.exec_root / name) if not path.name.startswith(".")]
        found += [f"left {path}" for path in _entries(self.data_root / "containers")]
        found += [f"cgroup {path}" for path in self._cgroups() if any(child.is_dir() for child in path.iterdir())]
        ports = _CLASS_NET / self.bridge / "brif"
        found += [f"link {path.name} on {self.bridge}" for path in _entries(ports)]
        return found

    def descriptors(self) -> int:
        """How many files the daemon holds open."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _delete_table(self) -> None:
        # A table that outlives its bridge would drop the packets of the next one with the same addresses.
        from wherry.kernel.nftables import Nftables

        with contextlib.closing(Nftables()) as nftables:
            for line in nftables.run("list tables").splitlines():
                if line.endswith(f" {self.table}"):
                    nftables.run(f"delete {line}")

    def _cgroups(self) -> list[Path]:
        places = [_CONTROLLERS / self.cgroup, *_CONTROLLERS.glob(f"*/{self.cgroup}")]
        return [path for path in places if path.is_dir()]

    def remove(self) -> list[str]:
        """End everything of it and take it all away; what of its helpers did not end by itself."""
        self.stop()
        stuck = []
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self.processes(), 5, "helpers end")
        for pid, command in self.processes().items():
            stuck.append(f"process {pid}: {command}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in self._cgroups():
            for child in sorted(path.rglob("*"), reverse=True):
                if child.is_dir():
                    with contextlib.suppress(OSError):
                        child.rmdir()
            with contextlib.suppress(OSError):
                path.rmdir()
        _quietly("ip", "link", "delete", self.bridge)
        self._delete_table()
        for line in reversed(_lines("/proc/self/mountinfo")):
            if str(self.root) in line.split()[4]:
                _quietly("umount", "-l", line.split()[4])
        shutil.rmtree(self.root, ignore_errors=True)
        return stuck


_CLASS_NET = Path("/sys/class/net")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def _quietly(*command: str) -> None:
    if shutil.which(command[0]):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: test workers are processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def busybox_tar() -> Path:
    """A busybox root file system as a tar, made once per machine from the distribution's package."""
    path = CACHE / "busybox.tar"
    if path.exists():
        return path
    with locked(CACHE / "lock"):
        if not path.exists():
            from wherry.images.busybox import make_busybox

            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                made = Path(scratch) / "busybox.tar"
                with made.open("wb") as out:
                    make_busybox(Path(scratch), out)
                made.rename(path)
    return path
