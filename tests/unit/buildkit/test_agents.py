"""An agent of the client's, reached by a socket here."""

import asyncio
import os
from pathlib import Path

from test_grpc_channel import Pair

from wherry.buildkit.grpc import Call, rpc_error
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.sessions import Session
from wherry.buildkit.ssh import Agents

_CHECK, _FORWARD = "/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"


async def _check(call: Call) -> None:
    request = await call.one(pb.CheckAgentRequest)
    if request.id != "default":
        raise rpc_error(2, f"unset ssh forward key {request.id}")
    call.begin()
    await call.send(pb.Empty())


async def _forward(call: Call) -> None:
    """An agent that answers each message with the same in capitals, and its own name."""
    call.begin()
    name = call.metadata["buildkit.ssh.id"][0]
    while (message := await call.recv(pb.BytesMessage)) is not None:
        await call.send(pb.BytesMessage(data=message.data.upper() + name.encode()))


def test_bytes_go_both_ways_and_nothing_is_left(tmp_path: Path) -> None:
    # Longer than a socket's address may be.
    scratch = tmp_path / ("x" * 120)
    scratch.mkdir()
    descriptors = len(os.listdir("/proc/self/fd"))

    async def talk(pair: Pair) -> list[bytes]:
        session = Session("id", "", frozenset((_CHECK, _FORWARD)), pair.client)
        agents = Agents(session, scratch)
        try:
            assert await agents.agent("nosuch") is None
            path = await agents.agent("default")
            assert path is not None
            assert await agents.agent("default") == path
            answers = []
            for words in (b"one", b"two"):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(words)
                writer.write_eof()
                answers.append(await reader.read())
                writer.close()
                await writer.wait_closed()
            return answers
        finally:
            await agents.close()

    async def main() -> object:
        pair = Pair({_CHECK: _check, _FORWARD: _forward})
        return await pair.run(talk(pair))

    assert asyncio.run(main()) == [b"ONEdefault", b"TWOdefault"]
    assert not list(scratch.iterdir())
    assert len(os.listdir("/proc/self/fd")) == descriptors
