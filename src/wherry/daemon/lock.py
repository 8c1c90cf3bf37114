"""One daemon per root: locks that die with their process, and the pid file."""

import fcntl
import os
from pathlib import Path

from wherry.errors import Conflict, FailedPrecondition


class RootLock:
    """Holds `<root>/daemon.lock` for as long as the process lives; the file names the process."""

    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._descriptor = os.open(root / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FailedPrecondition(f"cannot use {root}: {error.strerror}", object=str(root)) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Conflict(
                f"another daemon (process {holder}) uses {root}",
                object=str(root),
                hint="stop it, or give this one another --data-root and --exec-root",
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another daemon use the root."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class PidFile:
    """The file that tells others the daemon's process id; gone when the daemon ends in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_if_alive()
            temporary = path.with_name(f"{path.name}.{os.getpid():x}")
            temporary.write_text(f"{os.getpid()}\n")
            os.replace(temporary, path)
        except OSError as error:
            raise FailedPrecondition(f"cannot write the pid file {path}: {error.strerror}", object=str(path)) from None

    def _refuse_if_alive(self) -> None:
        try:
            text = self._path.read_text().strip()
        except FileNotFoundError:
            return
        if text.isdigit() and int(text) != os.getpid() and _is_daemon(int(text)):
            raise Conflict(
                f"process {text} of {self._path} is still running",
                object=str(self._path),
                hint="stop it, or give another --pidfile",
            )

    def remove(self) -> None:
        """Take the file away if it is still this process's."""
        try:
            if self._path.read_text().strip() == str(os.getpid()):
                self._path.unlink()
        except OSError:
            pass


def _is_daemon(pid: int) -> bool:
    # The number may long be another process's.
    try:
        return b"wherry" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
