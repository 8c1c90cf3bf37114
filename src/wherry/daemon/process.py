"""The daemon's life: settings, checks, locks, engine, listening, signals, end."""

import asyncio
import faulthandler
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wherry import __version__
from wherry.daemon.configuration import daemon_config
from wherry.daemon.help import help_text
from wherry.daemon.lock import PidFile, RootLock
from wherry.daemon.log import set_up_log
from wherry.daemon.machine import check_machine, set_limits
from wherry.daemon.service import Service
from wherry.daemon.settings import Settings, parse_flags, read_settings
from wherry.daemon.sockets import listen
from wherry.errors import WherryError

if TYPE_CHECKING:
    from wherry.engine import DaemonConfig

log = logging.getLogger("wherry.daemon")


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
    _set_proxies(config)
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
            config = replace(config, warnings=tuple(each.warning for each in listeners if each.warning))
            with asyncio.Runner() as runner:
                runner.run(Service(settings, config, listeners, arguments).run())
        except WherryError as error:
            log.critical("%s", error)
            return 1
        except Exception:
            log.critical("the daemon cannot go on", exc_info=True)
            return 1
    return 0


def _set_proxies(config: "DaemonConfig") -> None:
    """The environment is where everyone looks for them; there is but one thread yet."""
    for name, value in (("http", config.http_proxy), ("https", config.https_proxy), ("no", config.no_proxy)):
        if value:
            os.environ[f"{name.upper()}_PROXY"] = os.environ[f"{name}_proxy"] = value
