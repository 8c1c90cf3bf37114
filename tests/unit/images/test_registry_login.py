"""Signing in to registries. Kinds and messages are those of dockerd 28.5 at the same registries."""

import asyncio
import re
import socket

import pytest
from image_fakes import Bench
from image_registry import FakeRegistry

from wherry.errors import Internal, InvalidArgument, Unauthenticated, WherryError
from wherry.images import RegistryAuth

JOE, STRANGER = RegistryAuth("joe", "pw"), RegistryAuth("joe", "bad")


def login(bench: Bench, kind: str, auth: RegistryAuth, server: str = "{}") -> tuple[str, FakeRegistry]:
    registry = FakeRegistry()
    registry.auth = kind

    async def run() -> str:
        async with registry.serve():
            return await bench.images.login(auth._replace(server=server.format(registry.address)))

    return asyncio.run(asyncio.wait_for(run(), 60)), registry


@pytest.mark.parametrize("server", ["{}", "http://{}", "https://{}/v2/"])
@pytest.mark.parametrize(
    ("kind", "auth", "token"),
    [
        ("", STRANGER, ""),
        ("basic", JOE, ""),
        ("bearer", JOE, "identity"),
        ("bearer", RegistryAuth(identity_token="identity"), "identity"),
    ],
)
def test_credentials_that_are_taken(bench: Bench, kind: str, auth: RegistryAuth, token: str, server: str) -> None:
    given, registry = login(bench, kind, auth, server)
    assert given == token
    assert not any("scope" in path for _, path, _ in registry.requests)


@pytest.mark.parametrize(
    ("kind", "auth", "error", "message"),
    [
        ("basic", STRANGER, Internal, r"login attempt to http://.*/v2/ failed with status: 401 Unauthorized"),
        ("basic", RegistryAuth(), Internal, r'Get "http://.*/v2/": no basic auth credentials'),
        ("basic", RegistryAuth(registry_token="x"), Internal, r'Get "http://.*/v2/": no basic auth credentials'),
        (
            "bearer",
            STRANGER,
            Unauthenticated,
            r'Get "http://.*/v2/": unauthorized: incorrect username or password',
        ),
        (
            "bearer",
            RegistryAuth(identity_token="hub"),
            Unauthenticated,
            r'Get "http://.*/v2/": unauthorized: token expired',
        ),
    ],
)
def test_credentials_that_are_refused(
    bench: Bench, kind: str, auth: RegistryAuth, error: type[WherryError], message: str
) -> None:
    with pytest.raises(error) as caught:
        login(bench, kind, auth)
    assert type(caught.value) is error
    assert re.fullmatch(message, caught.value.message)


@pytest.mark.parametrize("server", ["..", "%%%", "ftp://host", "https://joe@host", "host:x", "a" * 300, "https://\0"])
def test_addresses_that_are_none(bench: Bench, server: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to parse server address"):
        login(bench, "", JOE, server)


def test_nobody_there(bench: Bench) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(
            Internal, match=f'Get "http://{address}/v2/": dial tcp {address}: connect: connection refus'
        ):
            login(bench, "", JOE, address)
