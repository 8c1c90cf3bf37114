"""RUN --mount=type=ssh: a socket here that leads to an agent of the client's."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from wherry.buildkit.grpc import RpcError, unary
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.sessions import Session

_CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
_CHUNK = 32 << 10
_CONNECTIONS = 32


class Agents:
    """The builder's SshSource for one build."""

    def __init__(self, session: Session, scratch: Path) -> None:
        self._session, self._scratch = session, scratch
        self._servers: dict[str, asyncio.AbstractServer] = {}
        self._paths: dict[str, str] = {}
        self._directories: list[tuple[str, int]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def agent(self, id: str) -> str | None:
        """The socket, or None for an agent the client does not have."""
        if id in self._paths:
            return self._paths[id]
        if not self._session.offers(_CHECK):
            return None
        try:
            await unary(self._session.channel, _CHECK, pb.CheckAgentRequest(id=id), pb.Empty)
        except RpcError:
            return None
        directory = tempfile.mkdtemp(prefix="ssh-", dir=self._scratch)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directories.append((directory, fd))
        # An address has room for 107 bytes, whatever the scratch directory's name is.
        path = f"/proc/self/fd/{fd}/agent"

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._forward(id, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._servers[id] = await asyncio.start_unix_server(connected, path)
        self._paths[id] = path
        return path

    async def _forward(self, id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._tasks) > _CONNECTIONS:
                return
            async with self._session.calling(_FORWARD, {"buildkit.ssh.id": [id]}) as call:

                async def outward() -> None:
                    while data := await reader.read(_CHUNK):
                        await call.send(pb.BytesMessage(data=data))
                    await call.stream.send([], end=True)

                sending = asyncio.ensure_future(outward())
                try:
                    while (message := await call.recv(pb.BytesMessage)) is not None:
                        writer.write(message.data)
                        await writer.drain()
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
        except (OSError, RpcError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        """End what is forwarded."""
        for server in self._servers.values():
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for directory, fd in self._directories:
            os.close(fd)
            shutil.rmtree(directory, ignore_errors=True)
