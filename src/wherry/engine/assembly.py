"""The real parts of an engine."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from wherry.content import ContentStore
from wherry.dns import client as dns
from wherry.engine.builds import Builds
from wherry.engine.config import DaemonConfig
from wherry.engine.parts import Exit, Logger, Monitor, Parts, Resolver
from wherry.errors import Unavailable
from wherry.images import Images, RegistryConfig
from wherry.kernel.cgroups import cgroup
from wherry.kernel.sweeper import Sweeper
from wherry.logs import client as logs
from wherry.network.config import NetworkConfig
from wherry.network.networks import Networks
from wherry.runtime import client as runtime
from wherry.snapshots import OverlaySnapshotter
from wherry.state import SQLiteStore
from wherry.volumes import Volumes


def assemble(config: DaemonConfig) -> Parts:
    """In a thread: open everything below the data root."""
    store = SQLiteStore(config.data_root / "state.db")
    sweeper = Sweeper(f"wherry sweeper {config.data_root}")
    snapshots = OverlaySnapshotter(config.data_root / "snapshots", sweeper)
    content = ContentStore(config.data_root / "content", store)
    networks = Networks(
        NetworkConfig(
            bridge=config.bridge,
            table=config.nftables_table,
            exec_root=config.exec_root,
            bip=config.bip or None,
            mtu=config.mtu or None,
            fixed_cidr=config.fixed_cidr or None,
            fixed_cidr_v6=config.fixed_cidr_v6 or None,
            ipv6=config.ipv6,
            icc=config.icc,
            ip_forward=config.ip_forward,
            ip_masq=config.ip_masq,
            pools=config.address_pools,
            ipv6_networks=config.ipv6_networks,
            driver_options=config.network_options,
            default_bind=config.default_bind_address,
        ),
        store,
    )
    registries = RegistryConfig(
        insecure=config.insecure_registries,
        mirrors=config.registry_mirrors,
        downloads=config.max_downloads,
        uploads=config.max_uploads,
        attempts=config.max_download_attempts,
    )
    volumes = Volumes(config.data_root / "volumes", store)

    async def open_monitor(on_exit: Callable[[Exit], None], on_lost: Callable[[], None]) -> Monitor:
        # Without containers it ends when its last client goes: a connection may have reached the queue of one that is
        # about to end, so only an answer counts.
        with suppress(Unavailable):
            monitor = await runtime.Monitor.connect(config.monitor_socket, on_exit, on_lost)
            await monitor.ping()
            return monitor
        await asyncio.to_thread(runtime.spawn, config.exec_root)
        return await runtime.Monitor.connect(config.monitor_socket, on_exit, on_lost)

    async def open_logger(on_eof: Callable[[str], None], on_lost: Callable[[], None]) -> Logger:
        with suppress(Unavailable):
            logger = await logs.Logger.connect(config.logger_socket, on_eof, on_lost)
            await logger.streams()
            return logger
        await asyncio.to_thread(logs.spawn, config.exec_root)
        return await logs.Logger.connect(config.logger_socket, on_eof, on_lost)

    async def open_resolver(on_lost: Callable[[], None], start: bool) -> Resolver | None:
        with suppress(Unavailable):
            return await dns.Resolver.connect(config.resolver_socket, on_lost)
        if not start:
            return None
        await asyncio.to_thread(dns.spawn, config.exec_root)
        return await dns.Resolver.connect(config.resolver_socket, on_lost)

    def clear() -> None:
        cgroup(config.cgroup_parent).delete()

    def close() -> None:
        networks.close()
        volumes.close()
        snapshots.close()
        store.close()

    return Parts(
        store=store,
        images=Images(config.data_root, store, content, snapshots, registries=registries),
        snapshots=snapshots,
        networks=networks,
        volumes=volumes,
        open_monitor=open_monitor,
        open_logger=open_logger,
        open_resolver=open_resolver,
        cgroup=cgroup,
        sweep=sweeper.discard,
        clear=clear,
        close=close,
        builder=Builds,
    )
