"""What `run`, `start -a`, `attach` and `exec` share: attach, pump, resize, pass signals on, learn the exit code."""

from __future__ import annotations

from wherry.cli.streams import Demultiplexer, DetachKeys, Pump, write_all
from wherry.client.engine import segment
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.main import Cli
    from wherry.cli.signals import SignalPipe
    from wherry.client.engine import EngineClient, Pending
    from wherry.client.http import Response, Socket


def exit_code(message: str) -> int:
    """docker's exit code for a start that failed: 127 not found, 126 not executable, 125 anything else."""
    text = message.lower()
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 125


def detach_sequence(cli: Cli, flag: str) -> str:
    """--detach-keys, or what config.json says."""
    if flag:
        return flag
    from wherry.client.context import config

    return str(config(cli.config_directory).get("detachKeys") or "")


def attach_query(stdin: bool, stdout: bool, stderr: bool, keys: str, logs: bool = False) -> list[tuple[str, str]]:
    query = [("detachKeys", keys)] if keys else []
    wanted = (("logs", logs), ("stderr", stderr), ("stdin", stdin), ("stdout", stdout), ("stream", True))
    return query + [(name, "1") for name, on in wanted if on]


class Waiter:
    """The wait for a container's exit, registered with the engine before the container is started."""

    def __init__(self, engine: EngineClient, container: str, condition: str) -> None:
        self._pending: Pending = engine.send("POST", f"/containers/{container}/wait", [("condition", condition)])
        self._engine = engine
        self._response: Response | None = None

    def registered(self) -> None:
        """Since 1.30 engines send the head of the answer once they watch the container."""
        if self._engine.at_least("1.30"):
            self._response = self._pending.response()

    def status(self) -> int:
        answer = self._engine.finish(self._response or self._pending.response())
        if error := (answer.get("Error") or {}).get("Message"):
            raise WherryError(f"Error waiting for container: {error}")
        return int(answer["StatusCode"])


class Session:
    """One attached stream."""

    def __init__(self, cli: Cli, resize_path: str, tty: bool, stdin: bool, keys: str) -> None:
        self._cli = cli
        self._resize_path = resize_path
        self._tty = tty
        self._stdin = stdin
        self._keys = keys
        self._pipe: SignalPipe | None = None
        self._forward: Callable[[int], None] | None = None

    def proxy_signals(self, container: str) -> None:
        """From now on signals go to the container instead of ending us."""
        from wherry.cli import signals

        self._pipe = signals.SignalPipe(signals.proxied())

        def forward(number: int) -> None:
            try:
                self._cli.engine.post(f"/containers/{container}/kill", [("signal", str(number))])
            except WherryError:
                pass  # it is gone, or not there yet: docker loses the signal as well

        self._forward = forward

    def watch_size(self) -> None:
        if self._tty and self._pipe is None:
            from wherry.cli import signals

            self._pipe = signals.SignalPipe({signals.WINCH})

    def resize(self) -> None:
        from wherry.cli.terminal import size

        found = size() if self._tty else None
        if found:
            try:
                self._cli.engine.post(self._resize_path, [("h", str(found[0])), ("w", str(found[1]))])
            except WherryError:
                pass  # the process is gone already

    def pump(self, sock: Socket, early: bytes) -> bool:
        """Until the stream ends. True when the user detached."""
        from wherry.cli.terminal import Raw, detach_keys

        take = self._raw if self._tty else Demultiplexer({0: 1, 1: 1, 2: 2}).feed
        keys = DetachKeys(detach_keys(self._keys)) if self._tty and self._stdin else None
        wake = None
        if self._pipe is not None:
            from wherry.cli.signals import dispatcher

            wake = (self._pipe.fd, dispatcher(self._pipe, self.resize, self._forward))
        with Raw(self._tty and self._stdin):
            return Pump(sock, early, take, 0 if self._stdin else None, keys, wake).run()

    @staticmethod
    def _raw(data: bytes) -> None:
        write_all(1, data)


def inspect_container(cli: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cli.engine.get(f"/containers/{segment(name)}/json")
    return found
