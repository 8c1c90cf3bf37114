"""How a helper is started by who needs it."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from wherry.errors import Unavailable
from wherry.ipc import seqpacket
from wherry.ipc.background import ALREADY_RUNNING

_SOURCE = str(Path(__file__).resolve().parents[2])


def spawn(name: str, module: str, exec_root: Path, *, timeout: float = 20.0) -> int:
    """Start `wherry <name>` detached and return its pid once its socket answers; the one that runs already, if any.

    It calls `<module>.main(exec_root)`, which uses `ipc.background`, in a session of its own and as no child of the
    caller's. Its files are `<exec_root>/<name>.sock`, `.lock` and, for its messages, `.log`. Unavailable, with the end
    of that log, when it does not come up.
    """
    exec_root.mkdir(mode=0o711, parents=True, exist_ok=True)
    socket, lock, log = (exec_root / f"{name}.{kind}" for kind in ("sock", "lock", "log"))
    code = f"import sys; sys.path.insert(0, {_SOURCE!r}); from {module} import main; sys.exit(main(sys.argv[-1]))"
    # "wherry <name>" is how the process is found in a process list.
    command = [sys.executable, "-I", "-S", "-c", code, "wherry", name, str(exec_root)]
    deadline = time.monotonic() + timeout
    while True:
        status = _start(command, log, max(deadline - time.monotonic(), 0.1))
        if status in (0, ALREADY_RUNNING) and _answers(socket):
            return int(lock.read_text())
        # One that was there may have been about to end; its lock goes with it.
        if status != ALREADY_RUNNING or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-500:].strip()
            raise Unavailable(f"the {name} did not start: {tail or f'status {status}'}", object=str(exec_root))


def _start(command: Sequence[str], log: Path, timeout: float) -> int:
    with log.open("ab") as errors_to:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors_to,
                stderr=errors_to,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return -1


def _answers(socket: Path) -> bool:
    """Whether it takes requests: connecting alone may reach the queue of one that is about to end."""
    try:
        connection = seqpacket.connect(str(socket))
    except OSError:
        return False
    try:
        seqpacket.send(connection, b'{"seq":0,"op":"ping"}')
        return seqpacket.receive(connection) is not None
    except OSError:
        return False
    finally:
        connection.close()
