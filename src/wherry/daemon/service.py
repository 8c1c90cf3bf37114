"""A running daemon: the engine open, its sockets served, signals answered, settings reloaded, the end in order."""

import asyncio
import gc
import logging
import os
import signal
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from wherry.daemon.checks import split_address
from wherry.daemon.configuration import daemon_config
from wherry.daemon.log import set_level
from wherry.daemon.notify import feed_watchdog, notify, notify_reloading
from wherry.daemon.options import OPTIONS
from wherry.daemon.settings import Settings, read_settings
from wherry.daemon.sockets import Listener, load_certificates, tls_context, uses_tls
from wherry.errors import WherryError

if TYPE_CHECKING:
    from wherry.api import Api
    from wherry.api.authz import Authorization
    from wherry.api.gates import Gate
    from wherry.api.timing import Timing
    from wherry.engine import DaemonConfig, Engine

log = logging.getLogger("wherry.daemon")
_THREADS = 32
"""For kernel work; the threads wait far more than they compute."""
_STOP_GRACE = 5
"""Seconds beyond those that containers have to stop in (dockerd's)."""


class Service:
    """One run of the daemon, from listening sockets to its end."""

    def __init__(
        self, settings: Settings, config: "DaemonConfig", listeners: list[Listener], arguments: Sequence[str]
    ) -> None:
        self._settings = settings
        self._config = config
        self._listeners = listeners
        self._arguments = arguments
        self._context: ssl.SSLContext | None = None
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: asyncio.Event
        self._engine: Engine
        self._api: Api
        self._authorization: Authorization
        self._timing: Timing | None = None

    async def run(self) -> None:
        """Until a signal ends it."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="wherry"))
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        log.info("Starting up: data root %s, exec root %s", self._config.data_root, self._config.exec_root)
        # Imported as late as this: --help, --version and wrong flags need none of it.
        from wherry.api.authz import Authorization, find_plugins
        from wherry.engine import Engine

        if uses_tls(self._settings):
            self._context = tls_context(self._settings)
        self._authorization = Authorization(await find_plugins(self._config.authorization_plugins))
        self._engine = await Engine.open(self._config)
        try:
            await self._serve()
            if not self._config.live_restore:
                await self._stop_containers()
        finally:
            await self._engine.close()
        log.info("Daemon shutdown complete%s", "; containers run on" if self._config.live_restore else "")

    async def _serve(self) -> None:
        from wherry.api import Api, over_tls
        from wherry.daemon.scoped import ScopedSockets

        loop, config = asyncio.get_running_loop(), self._config
        self._api = Api(self._engine)
        sockets = ScopedSockets(self._api, self._engine.store, config.exec_root / "sockets", config.data_root / "audit")
        self._api.sockets = sockets
        servers = await self._serve_metrics()
        self._set_gates()
        await sockets.restore()
        factory = self._api.server()
        for listener in self._listeners:
            accept = over_tls(self._context, factory) if listener.tls and self._context is not None else factory
            servers.append(await loop.create_server(accept, sock=listener.socket))
            log.info("API listen on %s", listener.address)
        loop.add_signal_handler(signal.SIGHUP, self._start_reload)
        # All that was made so far lives as long as the daemon: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        log.info("Daemon has completed initialization")
        notify("READY=1")
        watchdog = loop.create_task(feed_watchdog())
        await self._stop.wait()
        notify("STOPPING=1")
        watchdog.cancel()
        for server in servers:
            server.close()
        seconds = self._config.shutdown_timeout
        await asyncio.gather(factory.stop(seconds), sockets.close(seconds))

    async def _serve_metrics(self) -> list[asyncio.Server]:
        from wherry.api.timing import Timing
        from wherry.daemon import metrics

        address = self._settings.text("metrics-addr")
        if not address:
            return []
        self._timing = Timing()
        return [await metrics.serve(split_address(address), self._engine, self._timing)]

    def _set_gates(self) -> None:
        gates: list[Gate] = [self._authorization] if self._authorization.plugins else []
        if self._timing is not None:
            gates.append(self._timing)
        self._api.gates = tuple(gates)

    async def _stop_containers(self) -> None:
        """Within the time they have by their own settings, and no less than the daemon's."""
        seconds = self._engine.longest_stop(self._config.shutdown_timeout)
        try:
            async with asyncio.timeout(None if seconds is None else seconds + _STOP_GRACE):
                await self._engine.stop_all()
        except TimeoutError:
            log.error("not all containers ended in time; the next daemon finds them")

    def _on_stop(self, number: int) -> None:
        if self._stop.is_set():
            log.warning("signal %s again: leaving at once", signal.Signals(number).name)
            logging.shutdown()
            os._exit(128 + number)
        log.info("Processing signal '%s'", signal.Signals(number).name)
        self._stop.set()

    def _start_reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        """SIGHUP: take over everything that can change while running, or nothing; name what needs a restart."""
        async with self._reloading:
            notify_reloading()
            try:
                await self._take_over()
            except WherryError as error:
                log.error("Error reconfiguring the daemon: %s", error)
            finally:
                notify("READY=1")

    async def _take_over(self) -> None:
        from wherry.api.authz import find_plugins

        wanted = read_settings(self._arguments)
        values, before = dict(self._settings.values), self._settings.values
        values |= {option.flag: wanted.values[option.flag] for option in OPTIONS if option.live}
        waiting = sorted(name for name, value in wanted.values.items() if value != values[name])
        settings = Settings(values, wanted.given)
        # All that can fail comes first.
        config = daemon_config(settings, self._config.warnings)
        plugins = self._authorization.plugins
        if config.authorization_plugins != self._config.authorization_plugins:
            plugins = await find_plugins(config.authorization_plugins)
        if self._context is not None:
            load_certificates(self._context, settings)
        self._authorization.plugins = plugins
        self._set_gates()
        set_level("debug" if settings.flag("debug") else settings.text("log-level"))
        self._engine.reconfigure(config)
        self._settings, self._config = settings, config
        changed = sorted(name for name, value in values.items() if value != before[name])
        log.info("Reloaded configuration: %s", ", ".join(changed) or "nothing has changed")
        if waiting:
            log.warning("Reloaded configuration; needing a restart: %s", ", ".join(waiting))
