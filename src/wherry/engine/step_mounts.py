"""RUN --mount: what a step's command sees beside its tree."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from wherry.archive import copy_tree
from wherry.build.cache_mounts import CacheMounts
from wherry.build.dockerfile.mounts import Mount
from wherry.build.execution import MountSource
from wherry.build.graph import Run
from wherry.build.layer_view import view
from wherry.build.request import SecretSource, SshSource
from wherry.build.trees import SourceTree, resolve_directory
from wherry.engine.core import Core
from wherry.errors import NotFound
from wherry.kernel.paths import open_in_root

_CHUNK = 1 << 16
_READ_ONLY = ["ro", "nosuid", "nodev", "noexec"]


class StepMounts:
    """Makes them. `scratch` holds what steps may write to and lose."""

    def __init__(self, core: Core, caches: CacheMounts, scratch: Path) -> None:
        self._core, self._caches, self._scratch = core, caches, scratch
        self._snapshots: Any = core.parts.snapshots

    async def make(
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
            path = await asyncio.to_thread(write, bundle / "pipes" / name, text.encode(), 0o755)
            made.append(bind(f"/dev/pipes/{name}", str(path), ["ro"]))
        for index, one in enumerate(operation.mounts):
            mount = one.mount
            if mount.type == "bind":
                made.append(await asyncio.to_thread(self._shown, key, index, mount, sources[index]))
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
                made.append(bind(mount.target, path_of, ["ro"] if mount.read_only else ["rw"]))
            elif mount.type == "secret":
                secret = await self._secret(key, index, mount, secrets)
                if secret is not None:
                    made += secret[0]
                    env += secret[1]
            else:
                target = mount.target or f"/run/buildkit/ssh_agent.{index}"
                if await self._agent(key, index, mount, ssh, stack):
                    made.append(bind(target, str(bundle / f"agent-{index}"), ["ro"]))
                # Of the first, whether an agent is there or not: as BuildKit has it.
                if not any(item.startswith("SSH_AUTH_SOCK=") for item in env):
                    env.append(f"SSH_AUTH_SOCK={target}")
        return made, env

    def _shown(self, key: str, index: int, mount: Mount, source: MountSource) -> dict[str, Any]:
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
                return bind(mount.target, str(copy), ["rw"])
            return bind(mount.target, file, ["ro"])
        if mount.read_only and len(lowers) == 1:
            return bind(mount.target, lowers[0], ["ro"])
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
            await asyncio.to_thread(write, path, value, mode, mount.uid or 0, mount.gid or 0)
            mounts = [bind(mount.target, str(path), _READ_ONLY)]
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


def bind(target: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": ["bind", "rprivate", *options]}


def write(path: Path, data: bytes, mode: int, uid: int = 0, gid: int = 0) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    return path


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
