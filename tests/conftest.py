"""Fixtures for everyone: an engine to talk to, an image to run, names that nobody else uses."""

import contextlib
import gc
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from daemon import PEER, PEER_ADDRESS, Daemon, busybox_tar, wait_until
from engine_client import Api, DockerCli

if TYPE_CHECKING:
    import docker


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """Our daemon, one per test worker; what its containers leave behind fails the last test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Daemon()
    try:
        made.start()
        yield made
        made.stop()
        with contextlib.suppress(TimeoutError):
            # The kernel takes network namespaces apart in its own time.
            wait_until(lambda: not made.leaks(), 5, "nothing is left")
        leaks = made.leaks()
        log = made.log_text()
    finally:
        stuck = made.remove()
    assert not leaks + stuck, "\n".join([*leaks, *stuck, "", log[-3000:]])


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> str:
    """The engine under test: unix:///..."""
    if PEER:
        return PEER
    made: Daemon = request.getfixturevalue("daemon")
    return made.host


@pytest.fixture(scope="session")
def address() -> str:
    """Where ports published by the engine under test are reached."""
    return PEER_ADDRESS if PEER else "127.0.0.1"


@pytest.fixture(scope="session")
def image(host: str) -> Iterator[str]:
    """The name of a busybox image (Cmd: sh) on the engine."""
    api = Api(host)
    name = f"wherry-test-{uuid.uuid4().hex[:8]}:latest"
    query = f"fromSrc=-&repo={name.partition(':')[0]}&tag=latest&changes=CMD+%5B%22sh%22%5D"
    with busybox_tar().open("rb") as tar:
        answer = api.request("POST", f"/images/create?{query}", tar.read(), {"Content-Type": "application/x-tar"})
    assert answer.status == 200, answer.body
    assert b"errorDetail" not in answer.body, answer.body
    yield name
    api.request("DELETE", f"/images/{name}?force=1")
    api.close()


@pytest.fixture
def api(host: str) -> Iterator[Api]:
    """The engine's API, as it is on the wire."""
    client = Api(host)
    yield client
    client.close()


@pytest.fixture
def name(host: str) -> Iterator[str]:
    """A name for one container (or volume, or image); what bears it, or begins with it, is gone after the test."""
    made = f"wt-{uuid.uuid4().hex[:10]}"
    yield made
    client = Api(host)
    for container in client.get(f'/containers/json?all=1&filters={{"name":["{made}"]}}').json:
        client.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    for volume in client.get("/volumes").json["Volumes"] or ():
        if volume["Name"].startswith(made):
            client.request("DELETE", f"/volumes/{volume['Name']}?force=1")
    for found in client.get("/images/json").json:
        for tag in found["RepoTags"] or ():
            if tag.startswith(made):
                client.request("DELETE", f"/images/{tag}?force=1")
    client.close()


@pytest.fixture
def docker(host: str, tmp_path_factory: pytest.TempPathFactory) -> DockerCli:
    """The real docker client."""
    binary = shutil.which("docker")
    if binary is None:
        pytest.skip("the docker client is not installed")
    return DockerCli(binary, host, tmp_path_factory.mktemp("docker-config"))


@pytest.fixture
def sdk(host: str) -> "Iterator[docker.DockerClient]":
    """docker-py."""
    library = pytest.importorskip("docker")
    client = library.DockerClient(base_url=host, version="auto", timeout=30)
    yield client
    client.close()
    # It leaves the sockets of its streams to the collector.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
