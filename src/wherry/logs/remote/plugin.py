"""Log-driver plugins: entries down a FIFO, each a protobuf message preceded by its length (plugins_logging.md)."""

import os
import select
import time
from collections.abc import Sequence

from wherry.errors import Unavailable
from wherry.logs.backlog import Message
from wherry.logs.remote.driver import TIMEOUT, Context, Driver
from wherry.logs.remote.entry import encode
from wherry.plugins import Plugin, activate


class PluginDriver:
    """One container's entries."""

    retry_seconds = 1.0
    max_retries: int | None = None

    def __init__(self, context: Context) -> None:
        self._context = context
        self._plugin: Plugin | None = None
        self._path = ""
        self._fifo = -1

    def connect(self) -> None:
        if self._fifo >= 0:
            return
        plugin = activate(self._context.name, "LogDriver", patience=TIMEOUT)
        self._path = str(self._context.scratch / os.urandom(16).hex())
        os.mkfifo(self._path, 0o700)
        try:
            info = {**self._context.info, "Config": dict(self._context.options)}
            plugin.call("LogDriver.StartLogging", {"File": self._path, "Info": info})
            self._plugin = plugin
            self._fifo = self._open()
        except BaseException:
            self._remove()
            raise

    def send(self, messages: Sequence[Message]) -> None:
        self.connect()
        data = memoryview(b"".join(encode(message) for message in messages))
        while data:
            try:
                data = data[os.write(self._fifo, data) :]
            except BlockingIOError:
                # As slow as it likes: its reader is a pipe's end, and that it went away is told by EPIPE.
                poller = select.poll()
                poller.register(self._fifo, select.POLLOUT)
                poller.poll(1000)

    def disconnect(self) -> None:
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1
        if self._plugin is not None:
            try:
                self._plugin.call("LogDriver.StopLogging", {"File": self._path}, timeout=TIMEOUT)
            except Exception:  # noqa: BLE001 - it is being left, whatever it says
                pass
        self._plugin = None
        self._remove()

    def finish(self) -> None:
        self.disconnect()

    def _open(self) -> int:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"plugin {self._context.name} does not read {self._path}: {error}") from None
            time.sleep(0.02)

    def _remove(self) -> None:
        try:
            os.unlink(self._path)
        except OSError:
            pass


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return PluginDriver(context)
