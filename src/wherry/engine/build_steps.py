"""The commands of builds: each a container of the runtime's, on a snapshot that is given, with nothing else around it.

What a step leaves behind in a crash is known by its id, as a container's is: bundle, cgroup, network and snapshot of
an id that is no container's are removed at the next start.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from wherry.build.cache_mounts import CacheMounts
from wherry.build.execution import MountSource
from wherry.build.graph import Run
from wherry.build.progress import BuildOutput
from wherry.build.request import SecretSource, SshSource
from wherry.build.sharing import Busy
from wherry.engine.core import Core
from wherry.engine.hostfiles import write_network_files
from wherry.engine.oci_spec import Inputs, write_spec
from wherry.engine.parts import Exit, Stdio
from wherry.engine.records import Definition
from wherry.engine.step_mounts import StepMounts
from wherry.engine.step_output import Reader, ended
from wherry.engine.step_tree import Stub, look, remove_stubs
from wherry.engine.users import identify
from wherry.errors import Internal, NotFound, PermissionDenied, Unimplemented
from wherry.network.endpoint import Endpoint, EndpointRequest
from wherry.spec.docker import ContainerConfig, HostConfig

_HOSTS = "127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_FILES = ("/etc/resolv.conf", "/etc/hosts")
_DRAIN_SECONDS = 2.0
_CHUNK = 1 << 16
_MAX_FILE = 4 << 20
_READ_ONLY = ["ro", "nosuid", "nodev", "noexec"]


class StepRunner:
    """The builder's Executor. `scratch` holds what steps may write to and lose."""

    def __init__(self, core: Core, caches: CacheMounts, scratch: Path, busy: Busy) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        self._core, self._scratch, self._busy = core, scratch, busy
        self._mounts = StepMounts(core, caches, scratch)
        scratch.mkdir(mode=0o700, parents=True)
        self._exits: dict[str, asyncio.Future[Exit]] = {}

    def on_exit(self, exit: Exit) -> bool:
        """The monitor says that a process ended; whether it was a step's."""
        waiting = self._exits.get(exit.id)
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(exit)
        return True

    async def run(
        self,
        key: str,
        operation: Run,
        sources: Mapping[int, MountSource],
        output: BuildOutput,
        secrets: SecretSource | None,
        ssh: SshSource | None,
    ) -> int:
        """The command's exit status; 126 and 127 when it cannot be executed. Nothing but the snapshot is left."""
        core = self._core
        if core.remap is not None:
            # As a container without a mapping the step would be this machine's root.
            raise Unimplemented(
                "RUN steps are not supported with userns-remap yet",
                hint="build on a daemon without it, and pull or load",
            )
        bundle = core.bundle(key)
        self._busy.hold(key)
        async with AsyncExitStack() as stack:
            try:
                await asyncio.to_thread(os.makedirs, bundle / "rootfs", 0o711, exist_ok=True)
                mounts, env = await self._mounts.make(key, operation, sources, secrets, ssh, stack)
                stubs = await asyncio.to_thread(self._prepare, key, operation, mounts, env)
                status = await self._execute(key, output)
            finally:
                # Before the stack gives back what the command had mounted.
                await self._clean(key, bundle)
        if stubs:
            await asyncio.to_thread(remove_stubs, core.parts.snapshots, key, stubs)
        return status

    # -- before -----------------------------------------------------------------------------------------------------

    def _prepare(self, key: str, operation: Run, mounts: list[dict[str, Any]], env: list[str]) -> list[Stub]:
        """In a thread: network, files, configuration."""
        core = self._core
        bundle = core.bundle(key)
        network = operation.network
        endpoint = core.parts.networks.connect_all(key, [EndpointRequest(network=network, name=key)])[0]
        limits: dict[str, Any] = dict(operation.resources)
        host = HostConfig(
            network_mode=network,
            ipc_mode="private",
            cgroupns_mode="host",
            privileged=operation.security == "insecure",
            shm_size=operation.shm_size,
            ulimits=operation.ulimits,
            extra_hosts=operation.extra_hosts,
            **limits,
        )
        # "HOSTNAME" alone keeps the engine from adding it.
        given = {item.partition("=")[0] for item in operation.env}
        hidden = () if "HOSTNAME" in given else ("HOSTNAME",)
        config = ContainerConfig(
            hostname=operation.hostname,
            user=operation.user,
            env=(*hidden, *operation.env, *operation.proxies, *env),
            working_dir=operation.cwd,
        )
        path, *arguments = operation.args or ("",)
        definition = Definition(
            id=key, name=key, created_ns=0, image_id="", path=path, args=tuple(arguments), config=config, host=host
        )
        self._write_files(bundle, definition, operation, endpoint)
        targets = [*_FILES, *(mount["destination"] for mount in mounts)]
        accounts, stubs, missing = look(core.parts.snapshots, key, targets, operation.cwd)
        identity = identify(operation.user, (), accounts)
        if missing:
            self._make_directory(key, operation.cwd)
        files = {target: str(bundle / target.rpartition("/")[2]) for target in _FILES}
        inputs = Inputs(
            identity=identity,
            hostname=operation.hostname,
            cgroup_path=f"{(operation.cgroup_parent or core.config.cgroup_parent).rstrip('/')}/{key}",
            namespaces={"pid": "", "ipc": "", **_network(endpoint, network)},
            files=files,
            default_ulimits=core.config.default_ulimits,
            default_shm_size=core.config.default_shm_size,
            further_mounts=mounts,
        )
        fd = os.open(bundle / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(write_spec(definition, inputs))
        return stubs

    def _write_files(self, bundle: Path, definition: Definition, operation: Run, endpoint: Endpoint) -> None:
        gateway = ""
        if any(entry.endswith((":host-gateway", "=host-gateway")) for entry in operation.extra_hosts):
            gateway = self._core.config.host_gateway_ip or self._core.parts.networks.gateway
        write_network_files(bundle, definition, self._core.config, [endpoint], gateway)
        lines = _HOSTS.format(name=operation.hostname)
        for entry in operation.extra_hosts:
            name, _, address = entry.replace("=", ":", 1).partition(":")
            lines += f"{gateway if address == 'host-gateway' else address}\t{name}\n"
        (bundle / "hosts").write_text(lines)

    def _make_directory(self, key: str, path: str) -> None:
        from wherry.build.copying import make_directories

        root = self._core.parts.snapshots.open_root(key, writable=True)
        try:
            os.close(make_directories(root, path, (0, 0)))
        finally:
            os.close(root)

    # -- the command ------------------------------------------------------------------------------------------------

    async def _execute(self, key: str, output: BuildOutput) -> int:
        core = self._core
        monitor = await core.backends.monitor()
        rootfs = core.parts.snapshots.mounts(key)
        out, err = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK), os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for writer in (out[1], err[1]):
            os.set_blocking(writer, True)
        readers = [Reader(out[0], 1, output), Reader(err[0], 2, output)]
        try:
            exited = self._exits[key] = asyncio.get_running_loop().create_future()
            try:
                started = await monitor.run(key, core.bundle(key), rootfs, Stdio(None, out[1], err[1]))
            finally:
                os.close(out[1])
                os.close(err[1])
            try:
                await ended(started.pidfd)
            finally:
                os.close(started.pidfd)
            await asyncio.wait([exited, *(reader.done for reader in readers)], timeout=_DRAIN_SECONDS)
            if not exited.done():
                # Its end was seen by no monitor, or by one that was lost since.
                raise Internal("the command's exit status was lost", object=key)
            exit = exited.result()
        except (NotFound, PermissionDenied) as error:
            if "exec: " not in error.message:
                raise
            output.write(f"{error.message}\n".encode(), 2)
            return 127 if isinstance(error, NotFound) else 126
        finally:
            self._exits.pop(key, None)
            for reader in readers:
                reader.close()
        if exit.oom_killed:
            output.write(b"the command was killed: out of memory\n", 2)
        return exit.status if exit.status >= 0 else 255

    # -- after ------------------------------------------------------------------------------------------------------

    async def _clean(self, key: str, bundle: Path) -> None:
        """Also when the build is cancelled: to the end."""
        task = asyncio.ensure_future(self._clean_up(key, bundle))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _clean_up(self, key: str, bundle: Path) -> None:
        try:
            await (await self._core.backends.monitor()).delete(key, force=True)
        finally:
            # A release of the network is nobody's to wait for; its id is never used again.
            self._core.spawn(self._release(key, bundle), f"the end of {key}")

    async def _release(self, key: str, bundle: Path) -> None:
        try:
            await asyncio.to_thread(self._give_back, key, bundle)
        finally:
            self._busy.release(key)

    def _give_back(self, key: str, bundle: Path) -> None:
        self._core.parts.networks.disconnect(key)
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.rmtree(self._scratch / key, ignore_errors=True)


def _network(endpoint: Endpoint, mode: str) -> dict[str, str]:
    if endpoint.driver == "host":
        return {}
    return {"network": "" if endpoint.netns is None or mode == "none" else str(endpoint.netns)}
