"""`wherry registry`: the command, and the worker processes of a server."""

import asyncio
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiohttp import web

from wherry.errors import InvalidArgument, WherryError
from wherry.images.auth import RegistryAuth
from wherry.registry.access import Access
from wherry.registry.backend import Backend
from wherry.registry.collect import Collected, collect
from wherry.registry.directory import Directory
from wherry.registry.metrics import Metrics
from wherry.registry.objects import open_objects
from wherry.registry.options import Options, parse
from wherry.registry.passwords import Passwords
from wherry.registry.proxy import Proxy
from wherry.registry.quota import Quotas
from wherry.registry.server import Server
from wherry.registry.service import Service
from wherry.registry.store import Repositories
from wherry.registry.tokens import Tokens, TokenSettings, shared_secret
from wherry.registry.webhooks import Webhooks

log = logging.getLogger("wherry.registry")
_STOP_SECONDS = 10.0
_QUICK_DEATH_SECONDS = 1.0


def main(arguments: Sequence[str]) -> int:
    """0 when all went well; 1 with a message on standard error."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    try:
        command, options = parse(arguments)
        if command == "collect":
            print(json.dumps(_shown(asyncio.run(_collect_once(options)))))
            return 0
        return _serve(options)
    except (WherryError, OSError, ssl.SSLError) as error:
        print(f"wherry registry: {error}", file=sys.stderr)
        return 1


def _shown(found: Collected) -> dict[str, int]:
    return {"links": found.links, "blobs": found.blobs, "bytes": found.size, "uploads": found.uploads}


async def _collect_once(options: Options) -> Collected:
    backend = _backend(options)
    try:
        return await collect(Repositories(backend), options.grace, untagged=options.collect_untagged)
    finally:
        await backend.close()


def _backend(options: Options) -> Backend:
    return open_objects(options.storage, {}) if options.storage else Directory(options.root / "store")


def _serve(options: Options) -> int:
    # What is wrong is found before anything is forked, and said once.
    _access(options)
    _tls(options)
    metrics = Metrics(options.workers)
    listener, told = _listen(options.listen), _listen(options.metrics) if options.metrics else None
    host, port = listener.getsockname()[:2]
    log.info("serving %s on %s:%d", options.storage or options.root, host, port)
    if options.workers == 1:
        asyncio.run(_work(options, metrics, listener, told))
        return 0
    return _Workers(options, metrics, listener, told).run()


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InvalidArgument(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
    listener.listen(1024)
    listener.setblocking(False)
    return listener


class _Workers:
    """Keeps worker processes running until this one is told to stop."""

    def __init__(self, options: Options, metrics: Metrics, listener: socket.socket, told: socket.socket | None) -> None:
        self._options, self._metrics, self._listener, self._told = options, metrics, listener, told
        self._running: dict[int, tuple[int, float]] = {}
        self._stopping = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for worker in range(self._options.workers):
            self._start(worker)
        failed = False
        while self._running:
            pid, status = os.wait()
            worker, _ = self._running.pop(pid)
            if not self._stopping:
                log.error("worker %d ended (%d); started anew", worker, os.waitstatus_to_exitcode(status))
                self._start(worker)
            else:
                failed = failed or os.waitstatus_to_exitcode(status) != 0
        return int(failed)

    def _start(self, worker: int) -> None:
        pid = os.fork()
        if pid:
            self._running[pid] = (worker, 0.0)
            return
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self._metrics.belong_to(worker)
            asyncio.run(_work(self._options, self._metrics, self._listener, self._told if worker == 0 else None))
            code = 0
        except BaseException:
            log.exception("worker %d", worker)
        finally:
            logging.shutdown()
            os._exit(code)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)


async def _work(options: Options, metrics: Metrics, listener: socket.socket, told: socket.socket | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        service = await _service(options, metrics, stack)
        await _site(Server(service).application, listener, _tls(options), stack)
        if told is not None:
            await _site(_metrics_application(metrics), told, None, stack)
        if options.collect_every:
            collecting = asyncio.create_task(_collect_forever(options, service), name="collection")
            stack.callback(collecting.cancel)
        await stop.wait()


async def _service(options: Options, metrics: Metrics, stack: AsyncExitStack) -> Service:
    backend = _backend(options)
    stack.push_async_callback(backend.close)
    repositories = Repositories(backend)
    webhooks = Webhooks(options.webhooks, metrics)
    webhooks.start()
    stack.push_async_callback(webhooks.close)
    proxy = None
    if options.proxy:
        proxy = Proxy(repositories, options.proxy, _proxy_auth(options), fresh=options.proxy_fresh)
        stack.push_async_callback(proxy.close)
    return Service(
        repositories=repositories,
        access=_access(options),
        metrics=metrics,
        webhooks=webhooks,
        quotas=Quotas(options.quotas),
        proxy=proxy,
        read_only=options.read_only,
    )


async def _site(
    application: web.Application, listener: socket.socket, tls: ssl.SSLContext | None, stack: AsyncExitStack
) -> None:
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener, ssl_context=tls, backlog=1024).start()


def _metrics_application(metrics: Metrics) -> web.Application:
    async def show(request: web.Request) -> web.Response:
        return web.Response(
            text=metrics.text(), content_type="text/plain", headers={"X-Content-Type-Options": "nosniff"}
        )

    application = web.Application()
    application.router.add_get("/metrics", show)
    return application


async def _collect_forever(options: Options, service: Service) -> None:
    while True:
        await asyncio.sleep(options.collect_every)
        try:
            found = await collect(service.repositories, options.grace, untagged=options.collect_untagged)
        except (WherryError, OSError):
            log.exception("the collection failed; the next one will try again")
            continue
        service.metrics.add("collections_total")
        service.metrics.add("collected_blobs_total", found.blobs)
        service.metrics.add("collected_bytes_total", found.size)
        log.info("collected %s", _shown(found))


def _access(options: Options) -> Access:
    passwords = Passwords(options.htpasswd) if options.htpasswd else None
    tokens = None
    if options.issue_tokens or options.token_keys:
        settings = TokenSettings(options.token_realm, options.token_service, options.token_issuer)
        secret = shared_secret(options.root / "token-secret") if options.issue_tokens else None
        tokens = Tokens(settings, secret=secret, keys=options.token_keys)
    return Access(passwords, tokens, options.rules)


def _proxy_auth(options: Options) -> RegistryAuth | None:
    if not options.proxy_user:
        return None
    password = options.proxy_password_file.read_text().strip() if options.proxy_password_file else ""
    return RegistryAuth(username=options.proxy_user, password=password)


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"the certificate {options.tls_cert} cannot be used: {error}") from None
    return context
