"""A process that deletes directory trees for another one.

Deleting is many small system calls. In a thread of a Python process each of them contends for the interpreter's lock
with whoever answers requests there, which costs the requests more than the deletions themselves; a process of its own
costs them nothing. Paths go to it through a pipe; when that ends (its user closed it, or died) it finishes and ends.

    sweeper = Sweeper("wherry sweeper /var/lib/wherry")
    sweeper.discard("/var/lib/wherry/snapshots/trash/17")       # returns at once
    sweeper.close()                                             # waits for the rest

Nothing is promised: what a crash leaves must be findable by its place, and is discarded again at the next start.
"""

import os
import sys
import threading

from wherry.kernel.removal import remove_tree

_SEPARATOR = b"\0"
_CHUNK = 64 * 1024
_CLOSE_SECONDS = 5.0


class Sweeper:
    """Starts its process at first use, and again should that die. Any thread may call."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lock = threading.Lock()
        self._pipe = -1
        self._pid = 0

    def discard(self, path: str) -> None:
        """Have `path` and all below it deleted soon; absent is no error."""
        message = os.fsencode(path) + _SEPARATOR
        with self._lock:
            if self._pipe < 0:
                self._start()
            try:
                os.write(self._pipe, message)
            except BrokenPipeError:
                self._end()
                self._start()
                os.write(self._pipe, message)

    def close(self) -> None:
        """Let the process finish, for some seconds, and forget it; what is left then it deletes on its own."""
        with self._lock:
            if self._pipe >= 0:
                self._end()

    def _start(self) -> None:
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        program = f"import sys; sys.path.insert(0, {source!r}); from wherry.kernel.sweeper import main; main()"
        theirs, self._pipe = os.pipe2(os.O_CLOEXEC)
        # The interpreter finds its library by its argv[0]; the name for ps(1) is therefore an argument.
        interpreter: str = sys._base_executable  # type: ignore[attr-defined]
        try:
            self._pid = os.posix_spawn(
                interpreter,
                [interpreter, "-I", "-S", "-c", program, self._title],
                {"LANG": "C.UTF-8"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 0)],
                setsid=True,
            )
        except BaseException:
            os.close(self._pipe)
            self._pipe = -1
            raise
        finally:
            os.close(theirs)

    def _end(self) -> None:
        os.close(self._pipe)
        self._pipe = -1
        reaper = threading.Thread(target=os.waitpid, args=(self._pid, 0), daemon=True)
        reaper.start()
        reaper.join(_CLOSE_SECONDS)


def main() -> None:
    """The process: delete every path that comes in, until there are no more."""
    os.nice(5)
    rest = b""
    while data := os.read(0, _CHUNK):
        *paths, rest = (rest + data).split(_SEPARATOR)
        for path in paths:
            _sweep(path)


def _sweep(path: bytes) -> None:
    parent, name = os.path.split(path)
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_tree(directory, name)
    except OSError as error:
        # Still mounted somewhere, or being written to: left for the next start.
        sys.stderr.write(f"wherry sweeper: cannot delete {os.fsdecode(path)}: {error}\n")
    finally:
        os.close(directory)
