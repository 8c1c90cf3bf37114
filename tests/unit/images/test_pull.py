"""Pulling from registries that behave, and from some that do not. Messages are those of dockerd 28.5."""

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import zstandard
from aiohttp import web
from image_fakes import NOTHING, Bench, hex_of, make_config, make_tar
from image_registry import PLATFORM, TOKEN, FakeRegistry

from wherry.errors import InvalidArgument, NotFound, Unavailable, WherryError
from wherry.images import Image, RegistryAuth
from wherry.images.auth import parse_challenges
from wherry.images.endpoints import RegistryConfig, find_endpoints, is_insecure, origin
from wherry.spec.oci_image import (
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    DOCUMENT_MAX,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
)
from wherry.spec.platform import Platform
from wherry.state import Put

ONE, TWO = make_tar({"one": random.Random(1).randbytes(300_000)}), make_tar({"two": b"2" * 20})
CONFIG = make_config(ONE, TWO)
GZIP, ZSTD = (gzip.compress(ONE, mtime=0), f"{OCI_LAYER}+gzip"), (zstandard.compress(TWO), f"{OCI_LAYER}+zstd")
JOE = RegistryAuth("joe", "pw")
S390 = Platform(architecture="s390x")


def with_registry(test: Callable[[FakeRegistry], Awaitable[None]]) -> FakeRegistry:
    async def run() -> None:
        async with registry.serve():
            await test(registry)

    registry = FakeRegistry()
    registry.image("1", CONFIG, GZIP, ZSTD)
    asyncio.run(asyncio.wait_for(run(), 60))
    return registry


async def pull(bench: Bench, registry: FakeRegistry, name: str, **options: Any) -> tuple[Image, list[dict[str, Any]]]:
    messages: list[dict[str, Any]] = []
    options = {"platform": None, "auth": None} | options
    image = await bench.images.pull(f"{registry.address}/{name}", progress=messages.append, **options)
    return image, messages


def lines(messages: list[dict[str, Any]]) -> list[str]:
    """The messages but the bars, as people see them."""
    return [f"{m.get('id', '')}: {m['status']}".removeprefix(": ") for m in messages if not m.get("progressDetail")]


def test_an_image_and_what_docker_would_say(bench: Bench) -> None:
    async def test(registry: FakeRegistry) -> None:
        image, messages = await pull(bench, registry, "me/app:1")
        name, digest = f"{registry.address}/me/app", f"sha256:{hex_of(registry.manifests['1'][1])}"
        assert (image.references, image.digests) == ((f"{name}:1",), (f"{name}@{digest}",))
        assert image.id == f"sha256:{hex_of(CONFIG)}"
        assert bench.snapshots.layers[image.layers[1]][1] == TWO
        first, second = hex_of(GZIP[0])[:12], hex_of(ZSTD[0])[:12]
        shown = lines(messages)
        assert shown[:3] == ["1: Pulling from me/app", f"{first}: Pulling fs layer", f"{second}: Pulling fs layer"]
        assert shown[-2:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:1"]
        states = [line.partition(": ")[2] for line in shown if line.startswith(first)]
        assert states == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]
        bars = [m for m in messages if m.get("progressDetail") and m["id"] == first]
        assert {m["status"] for m in bars} == {"Downloading", "Extracting"}
        assert all(m["progressDetail"]["total"] == len(GZIP[0]) for m in bars)
        before = len(registry.requests)
        again, messages = await pull(bench, registry, "me/app:1")
        assert lines(messages) == [
            "1: Pulling from me/app",
            f"Digest: {digest}",
            f"Status: Image is up to date for {name}:1",
        ]
        assert again == image
        assert not any("/blobs/" in path for _, path, _ in registry.requests[before:])
        by_digest, messages = await pull(bench, registry, f"me/app@{digest}")
        assert lines(messages)[0] == f"{name}@{digest}: Pulling from me/app"
        assert by_digest == image
        everything, _ = await pull(bench, registry, "me/app")
        assert everything == image

    with_registry(test)


def test_shared_layers_are_not_pulled_again(bench: Bench) -> None:
    async def test(registry: FakeRegistry) -> None:
        await pull(bench, registry, "me/app:1")
        three = make_tar({"three": b"3"})
        registry.image("2", make_config(ONE, TWO, three), GZIP, ZSTD, (three, DOCKER_LAYER), mediaType=DOCKER_MANIFEST)
        registry.manifests["2"] = (DOCKER_MANIFEST, registry.manifests["2"][1])
        before = len(registry.requests)
        image, messages = await pull(bench, registry, "me/app:2")
        shown = lines(messages)
        assert shown[1:4] == [
            f"{hex_of(GZIP[0])[:12]}: Already exists",
            f"{hex_of(ZSTD[0])[:12]}: Already exists",
            f"{hex_of(three)[:12]}: Pulling fs layer",
        ]
        fetched = [path for _, path, _ in registry.requests[before:] if "/blobs/" in path]
        assert len(fetched) == 2  # the configuration and the third layer
        assert len(image.layers) == 3

    with_registry(test)


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_INDEX])
def test_an_index_leads_to_the_platform(bench: Bench, kind: str) -> None:
    async def test(registry: FakeRegistry) -> None:
        ours = registry.image("ours", CONFIG, GZIP, ZSTD)
        theirs = registry.image("theirs", make_config(TWO, architecture="s390x"), ZSTD)
        attestation = registry.image("attestation", b"{}") | {"platform": {"os": "unknown", "architecture": "unknown"}}
        entries = [
            attestation,
            theirs | {"platform": {"os": "linux", "architecture": "s390x"}},
            ours | {"platform": PLATFORM},
        ]
        top = registry.manifest("multi", {"manifests": entries}, kind)
        image, _ = await pull(bench, registry, "me/app:multi")
        assert (image.id, image.manifest) == (f"sha256:{hex_of(CONFIG)}", ours["digest"])
        assert image.digests == (f"{registry.address}/me/app@{top['digest']}",)
        other, _ = await pull(bench, registry, "me/app:multi", platform=S390)
        assert other.architecture == "s390x"
        with pytest.raises(NotFound) as caught:
            await pull(bench, registry, "me/app:multi", platform=Platform(architecture="riscv64"))
        assert caught.value.message == "no matching manifest for linux/riscv64 in the manifest list entries"
        _, messages = await pull(bench, registry, "me/app:ours", platform=S390)
        assert lines(messages)[-1].startswith("WARNING: image with reference")

    with_registry(test)


@pytest.mark.parametrize(
    ("auth", "given", "message"),
    [
        ("basic", JOE, ""),
        ("basic", None, "no basic auth credentials"),
        ("basic", RegistryAuth("joe", "bad"), "unauthorized: authentication required"),
        ("bearer", JOE, ""),
        ("bearer", RegistryAuth(identity_token="identity"), ""),
        ("bearer", RegistryAuth(registry_token=TOKEN), ""),
        (
            "bearer",
            None,
            "access denied for .*/me/app, repository does not exist or may require 'docker login': denied: requested",
        ),
        ("bearer", RegistryAuth("joe", "bad"), "unauthorized: incorrect username or password"),
        ("bearer", RegistryAuth(registry_token="other"), "unauthorized: authentication required"),
    ],
)
def test_authentication(bench: Bench, auth: str, given: RegistryAuth | None, message: str) -> None:
    async def test(registry: FakeRegistry) -> None:
        registry.auth = auth
        if not message:
            await pull(bench, registry, "me/app:1", auth=given)
            return
        with pytest.raises(WherryError, match=message):
            await pull(bench, registry, "me/app:1", auth=given)

    registry = with_registry(test)
    # The scope is what is wanted here, whatever the registry suggested.
    scopes = [path for _, path, _ in registry.requests if path.startswith("/token?")] + [
        str(form) for form in registry.forms
    ]
    assert all("me/app" in scope.replace("%2F", "/") and "push" not in scope for scope in scopes)


def test_credentials_do_not_follow_redirects(bench: Bench) -> None:
    other = FakeRegistry()

    async def test(registry: FakeRegistry) -> None:
        async with other.serve():
            registry.auth = "bearer"
            registry.redirect_blobs_to = f"http://user:word@{other.address}"
            other.blobs = registry.blobs
            await pull(bench, registry, "me/app:1", auth=JOE)

    with_registry(test)
    assert len(other.requests) == 3
    assert not any("Authorization" in headers for _, _, headers in other.requests)


async def cut(request: web.Request, data: bytes) -> web.StreamResponse | None:
    """Announces all of the first layer and sends a part."""
    if "Range" in request.headers or data != GZIP[0]:
        return None
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[:100_000])
    assert request.transport is not None
    request.transport.close()
    return response


async def cut_once_without_ranges(request: web.Request, data: bytes) -> web.StreamResponse | None:
    return web.Response(body=data) if "Range" in request.headers else await cut(request, data)


@pytest.mark.parametrize("answer", [cut, cut_once_without_ranges])
def test_a_broken_line_is_resumed(bench: Bench, answer: Any) -> None:
    async def test(registry: FakeRegistry) -> None:
        registry.blob_answer = answer
        await pull(bench, registry, "me/app:1")

    registry = with_registry(test)
    assert [headers["Range"] for _, _, headers in registry.requests if "Range" in headers] == ["bytes=100000-"]


def test_a_pull_goes_on_where_a_dead_one_stopped(bench: Bench) -> None:
    async def test(registry: FakeRegistry) -> None:
        with bench.content.leases.take("dead") as lease:
            with bench.content.ingest(f"blob sha256:{hex_of(GZIP[0])}", lease) as ingest:
                ingest.write(GZIP[0][:1000])
        bench.restart()
        await pull(bench, registry, "me/app:1")

    registry = with_registry(test)
    assert [headers["Range"] for _, _, headers in registry.requests if "Range" in headers] == ["bytes=1000-"]


def test_what_a_dead_pull_had_downloaded_is_not_downloaded_again(bench: Bench) -> None:
    first, forgotten = f"sha256:{hex_of(GZIP[0])}", b"of a pull a day ago"

    async def test(registry: FakeRegistry) -> None:
        bench.content.add(GZIP[0], bench.content.leases.take("pull"))
        old = bench.content.leases.take("pull")
        bench.content.add(forgotten, old)
        bench.store.write(Put(f"content/leases/{old.name}", json.dumps({"created": 1}).encode()))
        bench.restart()
        assert [info.digest for info in bench.content.walk()] == [first]
        image, _ = await pull(bench, registry, "me/app:1")
        bench.images.remove(image.id, force=True, in_use=lambda id: [])

    registry = with_registry(test)
    assert not [path for _, path, _ in registry.requests if path.endswith(first)]
    assert bench.leftovers() == NOTHING


def answer_with(data: bytes) -> Any:
    async def answer(request: web.Request, expected: bytes) -> web.StreamResponse | None:
        return web.Response(body=data) if expected == GZIP[0] else None

    return answer


async def fail(request: web.Request, data: bytes) -> web.StreamResponse | None:
    raise web.HTTPServiceUnavailable


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (answer_with(GZIP[0][:-1] + b"x"), InvalidArgument, "has the digest"),
        (answer_with(GZIP[0] + b"x"), InvalidArgument, "longer than"),
        (answer_with(GZIP[0][:-1]), WherryError, "unexpected status code: 416|closed the connection|longer"),
        (fail, Unavailable, "503"),
    ],
)
def test_a_blob_that_is_not_what_was_asked_for(bench: Bench, answer: Any, error: Any, message: str) -> None:
    async def test(registry: FakeRegistry) -> None:
        registry.blob_answer = answer
        with pytest.raises(error, match=message):
            await pull(bench, registry, "me/app:1")
        assert bench.images.list() == []
        assert bench.snapshots.layers == {}

    with_registry(test)
    assert [key for key, _ in bench.store.scan("images/")] == []
    assert [key for key, _ in bench.store.scan("content/")] == []


def bad_manifests(registry: FakeRegistry) -> dict[str, tuple[type[WherryError], str]]:
    """Tag to the error it must lead to."""
    config, layer = registry.blob(CONFIG, OCI_CONFIG), registry.blob(*GZIP)
    good = {"config": config, "layers": [layer, registry.blob(*ZSTD)]}
    registry.manifest("ambiguous", good | {"manifests": []})
    registry.manifest("fewer", good | {"layers": [layer]})
    registry.manifest("kind", good | {"layers": [layer, layer | {"mediaType": "text/html"}]})
    registry.manifest("artifact", good | {"config": config | {"mediaType": "application/vnd.oci.empty.v1+json"}})
    registry.manifest("huge-config", good | {"config": config | {"size": 1 << 40}})
    registry.manifest("short", good | {"layers": [layer | {"size": 10}, layer]})
    registry.manifest("long", good | {"layers": [layer | {"size": len(GZIP[0]) + 10}, layer]})
    registry.manifest("bomb", good | {"padding": "x" * DOCUMENT_MAX})
    registry.image("windows", make_config(ONE, os="windows"), GZIP)
    registry.image("swapped", make_config(TWO, ONE), GZIP, ZSTD)
    registry.manifests["junk"] = ("application/json", b"<html>")
    entry = registry.manifest("inner", good) | {"platform": PLATFORM}
    registry.manifest("wrong-size", {"manifests": [entry | {"size": 7}]}, OCI_INDEX)
    for depth in range(4):
        entry = registry.manifest(f"nested{depth}", {"manifests": [entry]}, OCI_INDEX) | {"platform": PLATFORM}
    # An index that names itself can be served, but not by its digest.
    registry.manifests[f"sha256:{'0' * 64}"] = (
        registry.manifest("x", {"manifests": []}, OCI_INDEX) and registry.manifests["nested0"]
    )
    registry.manifest("cyclic", {"manifests": [entry | {"digest": f"sha256:{'0' * 64}"}]}, OCI_INDEX)
    return {
        "ambiguous": (InvalidArgument, "ambiguous"),
        "fewer": (InvalidArgument, "has 1 layers, the image configuration 2"),
        "kind": (InvalidArgument, "unsupported media type text/html"),
        "artifact": (InvalidArgument, "no container image"),
        "huge-config": (InvalidArgument, "too large"),
        "short": (InvalidArgument, "longer than"),
        "long": (WherryError, "closed the connection|416"),
        "bomb": (WherryError, "larger than 4 MiB"),
        "windows": (InvalidArgument, 'operating system "windows" cannot be used'),
        "swapped": (InvalidArgument, "layer is not"),
        "junk": (InvalidArgument, "not JSON"),
        "wrong-size": (InvalidArgument, "not 7"),
        "nested3": (InvalidArgument, "nested too deep"),
        "cyclic": (WherryError, "manifest verification failed"),
        "absent": (NotFound, "manifest for .*/me/app:absent not found: manifest unknown: manifest unknown"),
    }


def test_manifests_made_to_harm_leave_nothing(bench: Bench) -> None:
    async def test(registry: FakeRegistry) -> None:
        for tag, (error, message) in bad_manifests(registry).items():
            with pytest.raises(error, match=message):
                await pull(bench, registry, f"me/app:{tag}")
            assert bench.images.list() == [], tag
            left = bench.leftovers()
            assert left | {"ingests": []} == NOTHING, tag

    with_registry(test)


def test_two_pulls_share_the_work(bench: Bench) -> None:
    async def test(registry: FakeRegistry) -> None:
        await asyncio.gather(*(pull(bench, registry, f"{name}:1") for name in ("one", "two", "three")))

    registry = with_registry(test)
    assert sum("/blobs/" in path for _, path, _ in registry.requests) == 3
    assert len(bench.images.resolve(f"sha256:{hex_of(CONFIG)}").references) == 3


def test_a_cancelled_pull_leaves_nothing(bench: Bench) -> None:
    async def test(registry: FakeRegistry) -> None:
        registry.held = asyncio.Event()
        waiting = asyncio.Event()

        def progress(message: dict[str, Any]) -> None:
            waiting.set()

        task = asyncio.create_task(bench.images.pull(f"{registry.address}/me/app:1", None, None, progress))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        registry.held.set()

    with_registry(test)
    assert bench.leftovers() | {"ingests": []} == NOTHING


def test_no_registry_there(bench: Bench) -> None:
    with pytest.raises(Unavailable) as caught:
        asyncio.run(bench.images.pull("127.0.0.1:1/x:1", None, None, lambda message: None))
    assert caught.value.message == 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'


def test_who_may_be_spoken_to_without_tls() -> None:
    config = RegistryConfig(insecure=("registry.lan:5000", "10.0.0.0/8"), mirrors=("http://localhost:5001/",))
    for domain in (
        "localhost",
        "localhost:5000",
        "127.0.0.1:5000",
        "127.9.9.9",
        "[::1]:5000",
        "registry.lan:5000",
        "10.1.2.3:80",
    ):
        assert is_insecure(domain, config), domain
    for domain in ("registry.lan", "localhost.evil.com", "127.0.0.1.evil.com", "11.0.0.1", "docker.io"):
        assert not is_insecure(domain, config), domain
    mirror, hub = find_endpoints("docker.io", config)
    assert (mirror.address, mirror.mirror, mirror.tls) == ("http://localhost:5001", True, False)
    assert (hub.address.startswith("https://"), hub.mirror, hub.tls) == (True, False, True)
    assert origin("https://A.b/x") == origin("https://a.B:443") != origin("http://a.b:443")


def test_challenges_are_parsed() -> None:
    header = 'Bearer realm="https://a/b",service="x, \\"y\\"",scope="repository:a:pull", Basic realm=z, Negotiate'
    bearer, basic, negotiate = parse_challenges([header])
    assert bearer == ("bearer", {"realm": "https://a/b", "service": 'x, "y"', "scope": "repository:a:pull"})
    assert (basic, negotiate) == (("basic", {"realm": "z"}), ("negotiate", {}))
    assert parse_challenges(["", "=", ", ,"]) == []
