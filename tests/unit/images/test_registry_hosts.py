"""Which hosts a registry is reached at, as administrators write it (hosts.toml), and how long to leave one alone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from image_fakes import Bench, hex_of, make_config, make_tar
from image_registry import FakeRegistry

from wherry.errors import InvalidArgument, Unavailable
from wherry.images import RegistryAuth
from wherry.images.endpoints import RegistryConfig, find_endpoints
from wherry.spec.oci_image import OCI_LAYER

ONE = make_tar({"one": b"1" * 1000})
CONFIG = make_config(ONE)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "root")
    made.images.registries.certificates = (tmp_path / "certs.d",)
    return made


def write(bench: Bench, host: str, text: str) -> None:
    directory = bench.images.registries.certificates[0] / host
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(text)


async def pull(bench: Bench, name: str, auth: RegistryAuth | None = None) -> Any:
    return await bench.images.pull(name, None, auth, lambda message: None)


def test_mirrors_of_any_registry_come_first_and_get_no_credentials(bench: Bench) -> None:
    async def test() -> None:
        mirror, home = FakeRegistry(), FakeRegistry()
        home.auth = "basic"
        for registry in (mirror, home):
            registry.image("1", CONFIG, (ONE, OCI_LAYER))
        home.image("2", make_config(ONE, created="2025-01-02T03:04:05Z"), (ONE, OCI_LAYER))
        async with mirror.serve(), home.serve():
            write(
                bench,
                "registry.lan_5000_",
                f'server = "http://{home.address}"\n'
                f'[host."http://{mirror.address}/some/where"]\ncapabilities = ["pull", "resolve"]\n'
                f'override_path = true\n[host."http://{mirror.address}/some/where".header]\nx-from = ["here"]\n',
            )
            joe = RegistryAuth("joe", "pw")
            image = await pull(bench, "registry.lan:5000/me/app:1", joe)
            assert image.references == ("registry.lan:5000/me/app:1",)
            assert [path for _, path, _ in mirror.requests][:1] == ["/some/where/me/app/manifests/1"]
            assert home.requests == []
            # What the mirror does not have the registry does.
            await pull(bench, "registry.lan:5000/me/app:2", joe)
            assert any("Authorization" in headers for _, _, headers in home.requests)
            assert not any("Authorization" in headers for _, _, headers in mirror.requests)
            assert all(headers.get("x-from") == "here" for _, _, headers in mirror.requests)
            assert not any("x-from" in headers for _, _, headers in home.requests)

    asyncio.run(test())


def test_who_may_not_resolve_is_not_asked_for_tags(bench: Bench) -> None:
    write(bench, "_default", '[host."https://a"]\ncapabilities = ["pull"]\nskip_verify = true\n')
    first, server = find_endpoints("quay.io", bench.images.registries)
    assert (first.address, first.tls, first.mirror, first.may("pull"), first.may("pull", "resolve")) == (
        "https://a",
        False,
        True,
        True,
        False,
    )
    assert (server.address, server.mirror, server.root) == ("https://quay.io", False, "https://quay.io/v2")
    assert find_endpoints("docker.io", bench.images.registries)[1].address == "https://registry-1.docker.io"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server = 1", "server must be a string"),
        ("x = 1", "unknown key 'x'"),
        ("[host", "hosts.toml: "),
        ('[host."ftp://a"]', "not an http"),
        ('[host."https://a"]\ncapabilities = ["delete"]', "capabilities are among"),
        ('[host."https://a"]\nca = "absent.pem"', "cannot use ca or client"),
        ('[host."https://a"]\nskip_verify = "yes"', "must be true or false"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(bench: Bench, text: str, message: str) -> None:
    write(bench, "quay.io", text)
    with pytest.raises(InvalidArgument, match=message):
        find_endpoints("quay.io", bench.images.registries)


def test_without_a_file_all_is_as_it_was(tmp_path: Path) -> None:
    config = RegistryConfig(certificates=(tmp_path,))
    assert [each.address for each in find_endpoints("localhost:1", config)] == [
        "https://localhost:1",
        "http://localhost:1",
    ]


def limited(registry: FakeRegistry, waits: list[str]) -> None:
    """Answers 429 to blobs, once for each of `waits`."""

    async def answer(request: web.Request, data: bytes) -> web.StreamResponse | None:
        return web.Response(status=429, headers={"Retry-After": waits.pop(0)}) if waits else None

    registry.blob_answer = answer


def test_a_rate_limit_is_waited_for(bench: Bench) -> None:
    async def test() -> None:
        registry = FakeRegistry()
        registry.image("1", CONFIG, (ONE, OCI_LAYER))
        async with registry.serve():
            limited(registry, ["0", "Thu, 01 Jan 1970 00:00:00 GMT"])
            image = await pull(bench, f"{registry.address}/me/app:1")
            assert image.id == f"sha256:{hex_of(CONFIG)}"

    asyncio.run(test())


def test_a_rate_limit_that_is_too_long_to_wait_for_is_told(bench: Bench) -> None:
    async def test() -> None:
        registry = FakeRegistry()
        registry.image("1", CONFIG, (ONE, OCI_LAYER))
        async with registry.serve():
            limited(registry, ["86400"] * 20)
            with pytest.raises(Unavailable, match="limits the rate of requests: try again in 86400 seconds"):
                await pull(bench, f"{registry.address}/me/app:1")

    asyncio.run(test())
    assert bench.images.list() == []
