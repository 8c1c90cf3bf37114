"""The commands of builds: each a container of the runtime's, on a snapshot that is given, with nothing else around it.

What a step leaves behind in a crash is known by its id, as a container's is: bundle, cgroup, network and snapshot of
an id that is no container's are removed at the next start.
"""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from wherry.archive import copy_tree
from wherry.build.cache_mounts import CacheMounts
from wherry.build.dockerfile.mounts import Mount
from wherry.build.graph import Run
from wherry.build.layer_view import find, view
from wherry.build.progress import BuildOutput
from wherry.build.request import SecretSource, SshSource
from wherry.build.solver import MountSource, resolve_directory
from wherry.build.trees import SourceTree
from wherry.engine.core import Core
from wherry.engine.hostfiles import write_network_files
from wherry.engine.oci_spec import Inputs, write_spec
from wherry.engine.parts import Exit, Stdio
from wherry.engine.records import Definition
from wherry.engine.users import Accounts, identify, read_accounts
from wherry.errors import Internal, NotFound, PermissionDenied, Unimplemented
from wherry.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_in_root, openat2
from wherry.network.endpoint import Endpoint, EndpointRequest
from wherry.spec.docker import ContainerConfig, HostConfig

_HOSTS = "127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_FILES = ("/etc/resolv.conf", "/etc/hosts")
_DRAIN_SECONDS = 2.0
_CHUNK = 1 << 16
_MAX_FILE = 4 << 20
_READ_ONLY = ["ro", "nosuid", "nodev", "noexec"]


class _Stub(NamedTuple):
    """A mount point that is not in the tree: `made` is the first of its directories that lacks, or itself."""

    path: str
    made: str
    parent_mtime: int


class StepRunner:
    """The builder's Executor. `scratch` holds what steps may write to and lose."""

    def __init__(self, core: Core, caches: CacheMounts, scratch: Path) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        self._core, self._caches, self._scratch = core, caches, scratch
        self._snapshots: Any = core.parts.snapshots
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
        async with AsyncExitStack() as stack:
            try:
                await asyncio.to_thread(os.makedirs, bundle / "rootfs", 0o711, exist_ok=True)
                mounts, env = await self._mounts(key, operation, sources, secrets, ssh, stack)
                stubs = await asyncio.to_thread(self._prepare, key, operation, mounts, env)
                status = await self._execute(key, output)
            finally:
                # Before the stack gives back what the command had mounted.
                await self._clean(key, bundle)
        if stubs:
            await asyncio.to_thread(self._remove_stubs, key, stubs)
        return status

    # -- before -----------------------------------------------------------------------------------------------------

    def _prepare(self, key: str, operation: Run, mounts: list[dict[str, Any]], env: list[str]) -> list[_Stub]:
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
        accounts, stubs, missing = self._look(key, targets, operation.cwd)
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

    def _look(self, key: str, targets: list[str], cwd: str) -> tuple[Accounts, list[_Stub], bool]:
        """Accounts, the mount points that lack, and whether `cwd` does, in the tree the step begins with."""
        layers = self._core.parts.snapshots.mounts(key)[0].lowerdirs
        try:
            texts = [_text(layers, path) for path in ("etc/passwd", "etc/group")]
            stubs = [stub for target in targets if (stub := _stub_of(layers, target)) is not None]
            return Accounts(*texts), stubs, cwd != "/" and find(layers, cwd) is None
        except (LookupError, OSError):
            # Links on the way: only the whole tree can tell.
            root = self._core.parts.snapshots.open_root(key)
            try:
                found = [stub for target in targets if (stub := _stub(root, target)) is not None]
                return read_accounts(root), found, _missing(root, cwd)
            finally:
                os.close(root)

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

    # -- mounts -----------------------------------------------------------------------------------------------------

    async def _mounts(
        self,
        key: str,
        operation: Run,
        sources: Mapping[int, MountSource],
        secrets: SecretSource | None,
        ssh: SshSource | None,
        stack: AsyncExitStack,
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """The OCI mounts of --mount, and the variables secrets become."""
        made: list[dict[str, Any]] = []
        env: list[str] = []
        bundle = self._core.bundle(key)
        if operation.script is not None:
            name, text = operation.script
            path = await asyncio.to_thread(_write, bundle / "pipes" / name, text.encode(), 0o755)
            made.append(_bind(f"/dev/pipes/{name}", str(path), ["ro"]))
        for index, one in enumerate(operation.mounts):
            mount = one.mount
            if mount.type == "bind":
                made.append(await asyncio.to_thread(self._bind, key, index, mount, sources[index]))
            elif mount.type == "tmpfs":
                size = [f"size={mount.size}"] if mount.size else []
                made.append(
                    {
                        "destination": mount.target,
                        "type": "tmpfs",
                        "source": "tmpfs",
                        "options": ["nosuid", "nodev", *size],
                    }
                )
            elif mount.type == "cache":
                seed = self._seed(mount, sources.get(index))
                path_of = await stack.enter_async_context(self._caches.acquire(mount, "", seed))
                made.append(_bind(mount.target, path_of, ["ro"] if mount.read_only else ["rw"]))
            elif mount.type == "secret":
                secret = await self._secret(key, index, mount, secrets)
                if secret is not None:
                    made += secret[0]
                    env += secret[1]
            else:
                target = mount.target or f"/run/buildkit/ssh_agent.{index}"
                if await self._agent(key, index, mount, ssh, stack):
                    made.append(_bind(target, str(bundle / f"agent-{index}"), ["ro"]))
                # Of the first, whether an agent is there or not: as BuildKit has it.
                if not any(item.startswith("SSH_AUTH_SOCK=") for item in env):
                    env.append(f"SSH_AUTH_SOCK={target}")
        return made, env

    def _bind(self, key: str, index: int, mount: Mount, source: MountSource) -> dict[str, Any]:
        """In a thread. What is written to a writable one goes to the scratch and is lost."""
        if source.directory:
            lowers: tuple[str, ...] = (resolve_directory(source.directory, mount.source),)
            file = lowers[0] if not os.path.isdir(lowers[0]) else ""
        else:
            root = self._snapshots.open_tree(source.chain)
            try:
                real = os.fsdecode(SourceTree(root, mount.origin or "the stage").resolve(mount.source or "/"))
            finally:
                os.close(root)
            found = view(source.layers, real)
            if found is None:
                raise NotFound(f'"{mount.source}": not found in {mount.origin}', object=mount.source)
            lowers, file = found.directories, found.file
        if file:
            if not mount.read_only:
                copy = self._scratch / key / f"file-{index}"
                copy.parent.mkdir(mode=0o700, exist_ok=True)
                shutil.copy2(file, copy)
                return _bind(mount.target, str(copy), ["rw"])
            return _bind(mount.target, file, ["ro"])
        if mount.read_only and len(lowers) == 1:
            return _bind(mount.target, lowers[0], ["ro"])
        options = [f"lowerdir={':'.join(lowers)}", "index=off", "metacopy=off"]
        if not mount.read_only:
            scratch = self._scratch / key / str(index)
            for name in ("upper", "work"):
                (scratch / name).mkdir(mode=0o755, parents=True)
            shutil.copystat(lowers[0], scratch / "upper")
            options += [f"upperdir={scratch}/upper", f"workdir={scratch}/work"]
        return {
            "destination": mount.target,
            "type": "overlay",
            "source": "overlay",
            "options": [*options, "ro" if mount.read_only else "rw"],
        }

    def _seed(self, mount: Mount, source: MountSource | None) -> Callable[[str], None] | None:
        if source is None:
            return None

        def fill(directory: str) -> None:
            found = self._open_source(mount, source)
            try:
                target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    copy_tree(found, target)
                finally:
                    os.close(target)
            finally:
                os.close(found)

        return fill

    def _open_source(self, mount: Mount, source: MountSource) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if source.directory:
            return os.open(resolve_directory(source.directory, mount.source), flags)
        root = self._snapshots.open_tree(source.chain)
        try:
            return open_in_root(root, mount.source.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(root)

    async def _secret(
        self, key: str, index: int, mount: Mount, secrets: SecretSource | None
    ) -> tuple[list[dict[str, Any]], list[str]] | None:
        value = await secrets.secret(mount.id) if secrets is not None else None
        if value is None:
            if mount.required:
                raise NotFound(
                    f"secret {mount.id}: not found", object=mount.id, hint=f"give it with --secret id={mount.id}"
                )
            return None
        mounts = []
        if mount.target:
            path = self._core.bundle(key) / "secrets" / str(index)
            mode = mount.mode if mount.mode is not None else 0o400
            await asyncio.to_thread(_write, path, value, mode, mount.uid or 0, mount.gid or 0)
            mounts = [_bind(mount.target, str(path), _READ_ONLY)]
        return mounts, [f"{mount.env}={value.decode('utf-8', 'surrogateescape')}"] if mount.env else []

    async def _agent(self, key: str, index: int, mount: Mount, ssh: SshSource | None, stack: AsyncExitStack) -> bool:
        path = await ssh.agent(mount.id) if ssh is not None else None
        if path is None:
            if mount.required:
                raise NotFound(
                    f"unset ssh forward key {mount.id}", object=mount.id, hint=f"give it with --ssh {mount.id}"
                )
            return False
        own = self._core.bundle(key) / f"agent-{index}"
        await stack.enter_async_context(_forwarded(path, own, mount))
        return True

    # -- the command ------------------------------------------------------------------------------------------------

    async def _execute(self, key: str, output: BuildOutput) -> int:
        core = self._core
        monitor = await core.backends.monitor()
        rootfs = core.parts.snapshots.mounts(key)
        out, err = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK), os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for writer in (out[1], err[1]):
            os.set_blocking(writer, True)
        readers = [_Reader(out[0], 1, output), _Reader(err[0], 2, output)]
        try:
            exited = self._exits[key] = asyncio.get_running_loop().create_future()
            try:
                started = await monitor.run(key, core.bundle(key), rootfs, Stdio(None, out[1], err[1]))
            finally:
                os.close(out[1])
                os.close(err[1])
            try:
                await _ended(started.pidfd)
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
            self._core.spawn(asyncio.to_thread(self._release, key, bundle), f"the end of {key}")

    def _release(self, key: str, bundle: Path) -> None:
        self._core.parts.networks.disconnect(key)
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.rmtree(self._scratch / key, ignore_errors=True)

    def _remove_stubs(self, key: str, stubs: list[_Stub]) -> None:
        """In a thread: empty mount points go, as far as the command left them empty; no link is followed."""
        options = self._core.parts.snapshots.mounts(key)[0].options
        upper = next(option.partition("=")[2] for option in options if option.startswith("upperdir="))
        # What the tree lacked can only be in what the step wrote, which nobody has mounted any more.
        root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for stub in reversed(stubs):
                _remove_stub(root, stub)
        finally:
            os.close(root)


class _Reader:
    """Reads one pipe on the loop until its end."""

    def __init__(self, fd: int, stream: int, output: BuildOutput) -> None:
        self._fd, self._stream, self._output = fd, stream, output
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._output.write(data, self._stream)
        else:
            self._loop.remove_reader(self._fd)
            if not self.done.done():
                self.done.set_result(None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _ended(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, ended)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)


def _network(endpoint: Endpoint, mode: str) -> dict[str, str]:
    if endpoint.driver == "host":
        return {}
    return {"network": "" if endpoint.netns is None or mode == "none" else str(endpoint.netns)}


def _bind(target: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": ["bind", "rprivate", *options]}


def _write(path: Path, data: bytes, mode: int, uid: int = 0, gid: int = 0) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    return path


def _missing(root: int, path: str) -> bool:
    try:
        os.close(open_in_root(root, path.lstrip("/") or "."))
    except OSError:
        return True
    return False


def _stub(root: int, path: str) -> _Stub | None:
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] in ("dev", "proc", "sys"):
        return None
    for count in range(1, len(parts) + 1):
        here = "/".join(parts[:count])
        if _missing(root, here):
            parent = open_in_root(root, "/".join(parts[: count - 1]) or ".")
            try:
                return _Stub("/".join(parts), here, os.fstat(parent).st_mtime_ns)
            finally:
                os.close(parent)
    return None


def _stub_of(layers: Sequence[str], path: str) -> _Stub | None:
    """As `_stub`, without the tree being mounted."""
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] in ("dev", "proc", "sys"):
        return None
    above = os.stat(layers[0])
    for count in range(1, len(parts) + 1):
        here = "/".join(parts[:count])
        status = find(layers, here)
        if status is None:
            return _Stub("/".join(parts), here, above.st_mtime_ns)
        above = status
    return None


def _text(layers: Sequence[str], path: str) -> str:
    status = find(layers, path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return ""
    found = view(layers, path)
    if found is None or not found.file:
        return ""
    fd = os.open(found.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read(_MAX_FILE).decode("utf-8", "replace")


def _remove_stub(root: int, stub: _Stub) -> None:
    path = stub.path
    plain = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    while path.startswith(stub.made):
        head, _, name = path.rpartition("/")
        try:
            parent = openat2(root, head or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=plain)
        except OSError:
            return
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(found.st_mode) and not found.st_size:
                os.unlink(name, dir_fd=parent)
            else:
                return
            if path == stub.made:
                os.utime(parent, ns=(stub.parent_mtime, stub.parent_mtime))
        except OSError:
            return
        finally:
            os.close(parent)
        if not head:
            return
        path = head


@asynccontextmanager
async def _forwarded(agent: str, own: Path, mount: Mount) -> AsyncIterator[None]:
    """A socket at `own` that leads to the one at `agent`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(agent)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_unix_server(serve, str(own))
    try:
        os.chown(own, mount.uid or 0, mount.gid or 0)
        own.chmod(mount.mode if mount.mode is not None else 0o600)
        yield
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        with contextlib.suppress(OSError):
            writer.close()
