"""The daemon's life: settings, checks, locks, engine, listening, signals, end."""

import asyncio
import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from wherry import __version__
from wherry.daemon.help import help_text
from wherry.daemon.lock import PidFile, RootLock
from wherry.daemon.log import set_level, set_up_log
from wherry.daemon.machine import check_machine, set_limits
from wherry.daemon.notify import notify
from wherry.daemon.settings import Settings, parse_flags, read_settings
from wherry.daemon.sockets import Listener, listen, tls_context, uses_tls
from wherry.daemon.ulimits import parse_ulimit
from wherry.errors import WherryError

if TYPE_CHECKING:
    from wherry.engine import DaemonConfig, Engine

log = logging.getLogger("wherry.daemon")

_THREADS = 32
"""For kernel work; the threads wait far more than they compute."""


def main(arguments: Sequence[str]) -> int:
    """Run the daemon until it is told to stop; the exit code."""
    try:
        flags = parse_flags(arguments)
        if flags.get("help"):
            print(help_text())
            return 0
        if flags.get("version"):
            print(f"Wherry version {__version__}")
            return 0
        settings = read_settings(arguments)
        config = daemon_config(settings)
    except WherryError as error:
        print(f"wherry daemon: {error}", file=sys.stderr)
        return 1
    if settings.flag("validate"):
        print("configuration OK")
        return 0
    set_up_log("debug" if settings.flag("debug") else settings.text("log-level"), settings.text("log-format"))
    return _run(settings, config, arguments)


def _run(settings: Settings, config: "DaemonConfig", arguments: Sequence[str]) -> int:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Containers' streams and exits are held as descriptors, here and in the processes started from here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        try:
            check_machine()
            set_limits()
            for root in dict.fromkeys((config.data_root, config.exec_root)):
                stack.callback(RootLock(root).release)
            pidfile = settings.text("pidfile")
            stack.callback(PidFile(Path(pidfile) if pidfile else config.exec_root / "daemon.pid").remove)
            listeners = listen(settings)
            for listener in listeners:
                stack.callback(listener.close)
            with asyncio.Runner() as runner:
                runner.run(_Daemon(settings, config, listeners, arguments).run())
        except WherryError as error:
            log.critical("%s", error)
            return 1
        except Exception:
            log.critical("the daemon cannot go on", exc_info=True)
            return 1
    return 0


class _Daemon:
    def __init__(
        self, settings: Settings, config: "DaemonConfig", listeners: list[Listener], arguments: Sequence[str]
    ) -> None:
        self._settings = settings
        self._config = config
        self._listeners = listeners
        self._arguments = arguments
        self._stop: asyncio.Event

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="wherry"))
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        log.info("Starting up: data root %s, exec root %s", self._config.data_root, self._config.exec_root)
        # Imported as late as this: --help, --version and wrong flags need none of it.
        from wherry.engine import Engine

        engine = await Engine.open(self._config)
        try:
            await self._serve(engine)
        finally:
            await engine.close()
        log.info("Daemon shutdown complete; containers run on")

    async def _serve(self, engine: "Engine") -> None:
        from wherry.api import Api, over_tls
        from wherry.daemon.scoped import ScopedSockets

        loop = asyncio.get_running_loop()
        api = Api(engine)
        sockets = ScopedSockets(api, engine.store, self._config.exec_root / "sockets", self._config.data_root / "audit")
        api.sockets = sockets
        await sockets.restore()
        factory = api.server()
        context = tls_context(self._settings) if uses_tls(self._settings) else None
        servers = []
        for listener in self._listeners:
            accept = over_tls(context, factory) if listener.tls and context is not None else factory
            servers.append(await loop.create_server(accept, sock=listener.socket))
            log.info("API listen on %s", listener.address)
        # All that was made so far lives as long as the daemon: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        log.info("Daemon has completed initialization")
        notify("READY=1")
        await self._stop.wait()
        notify("STOPPING=1")
        for server in servers:
            server.close()
        seconds = self._config.shutdown_timeout
        await asyncio.gather(factory.stop(seconds), sockets.close(seconds))

    def _on_stop(self, number: int) -> None:
        if self._stop.is_set():
            log.warning("signal %s again: leaving at once", signal.Signals(number).name)
            logging.shutdown()
            os._exit(128 + number)
        log.info("Processing signal '%s'", signal.Signals(number).name)
        self._stop.set()

    def _reload(self) -> None:
        """SIGHUP: take over what can change while running (debug, log-level); name what cannot."""
        try:
            settings = read_settings(self._arguments)
        except WherryError as error:
            log.error("Error reconfiguring the daemon: %s", error)
            return
        set_level("debug" if settings.flag("debug") else settings.text("log-level"))
        now, later = {"debug", "log-level"}, self._settings.values
        waiting = sorted(name for name, value in settings.values.items() if name not in now and value != later[name])
        if waiting:
            log.warning("Reloaded configuration; needing a restart: %s", ", ".join(waiting))
        else:
            log.info("Reloaded configuration")


def daemon_config(settings: Settings) -> "DaemonConfig":
    """What the engine needs to know."""
    from wherry.engine import DaemonConfig

    return DaemonConfig(
        data_root=Path(settings.text("data-root")),
        exec_root=Path(settings.text("exec-root")),
        bridge=settings.text("bridge"),
        bip=settings.text("bip"),
        mtu=settings.number("mtu") or 1500,
        default_bind_address=settings.text("ip"),
        cgroup_parent=settings.text("cgroup-parent"),
        dns=settings.items("dns"),
        dns_options=settings.items("dns-opt"),
        dns_search=settings.items("dns-search"),
        default_ulimits=tuple(parse_ulimit(text) for text in settings.items("default-ulimit")),
        default_shm_size=settings.number("default-shm-size"),
        log_driver=settings.text("log-driver"),
        log_options=settings.mapping("log-opt"),
        shutdown_timeout=settings.number("shutdown-timeout"),
        init=settings.flag("init"),
        labels=settings.items("label"),
        debug=settings.flag("debug"),
        insecure_registries=settings.items("insecure-registry"),
        registry_mirrors=settings.items("registry-mirror"),
    )
