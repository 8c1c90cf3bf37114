"""Who reaches whom: the same answers from every engine. One world of networks, asked all its questions at once."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from daemon import wait_until
from engine_client import Api

# container → its networks, first the one of its mode; what it publishes of its port 80.
CONTAINERS: dict[str, tuple[tuple[str, ...], int]] = {
    "anna": (("shop",), 18471),
    "bert": (("shop",), 0),
    "carl": (("store",), 0),
    "both": (("shop", "store"), 0),
    "dora": (("vault",), 0),
    "emil": (("vault",), 0),
    "fran": (("quiet",), 18472),
    "gerd": (("quiet",), 0),
    "hans": (("bridge",), 18473),
    "ines": (("bridge",), 0),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "shop": {},
    "store": {},
    "vault": {"Internal": True},
    "quiet": {"Options": {"com.docker.network.bridge.enable_icc": "false"}},
}
# (source, target, by what, whether it is reached). "gw:shop" is the host's address on a network.
MATRIX = [
    ("anna", "anna", "shop", True),
    ("anna", "bert", "shop", True),
    ("bert", "anna", "shop", True),
    ("anna", "carl", "store", False),
    ("carl", "anna", "shop", False),
    ("anna", "both", "shop", True),
    ("carl", "both", "store", True),
    ("carl", "both", "shop", False),
    ("both", "anna", "shop", True),
    ("both", "carl", "store", True),
    ("dora", "emil", "vault", True),
    ("dora", "anna", "shop", False),
    ("anna", "dora", "vault", False),
    ("hans", "dora", "vault", False),
    ("fran", "gerd", "quiet", False),
    ("gerd", "fran", "quiet", False),
    ("hans", "ines", "bridge", True),
    ("hans", "anna", "shop", False),
    ("anna", "hans", "bridge", False),
]
PUBLISHED = [
    ("anna", "gw:shop", 18471, True),
    ("bert", "gw:shop", 18471, True),
    ("carl", "gw:shop", 18471, True),
    ("carl", "gw:store", 18471, True),
    ("hans", "gw:bridge", 18471, True),
    ("ines", "gw:bridge", 18473, True),
    ("anna", "gw:shop", 18473, True),
    ("carl", "gw:quiet", 18472, True),
    ("anna", "gw:shop", 18479, False),
    ("dora", "gw:shop", 18471, False),
]
_SERVE = "echo here > /index.html; httpd -p 80 -h /; httpd -p '[::]:81' -h /; sleep 86400"


class World:
    def __init__(self, api: Api, image: str) -> None:
        self.api = api
        self.image = image
        self.mark = f"wm-{uuid.uuid4().hex[:8]}"
        self.answers: dict[tuple[str, str], bool] = {}
        self.documents: dict[str, Any] = {}
        self.gateways: dict[str, tuple[str, str]] = {}

    def name(self, short: str) -> str:
        return short if short == "bridge" else f"{self.mark}-{short}"

    def build(self) -> None:
        for network, options in NETWORKS.items():
            body = {"Name": self.name(network), "EnableIPv6": True, **options}
            answer = self.api.post("/networks/create", body)
            assert answer.status == 201, answer.body
        for short, (networks, port) in CONTAINERS.items():
            bindings = {"80/tcp": [{"HostPort": str(port)}]} if port else {}
            body = {
                "Image": self.image,
                "Cmd": ["sh", "-c", _SERVE],
                "ExposedPorts": {"80/tcp": {}},
                "HostConfig": {"NetworkMode": self.name(networks[0]), "PortBindings": bindings},
                "NetworkingConfig": {"EndpointsConfig": {self.name(network): {} for network in networks}},
            }
            made = self.api.post(f"/containers/create?name={self.mark}-{short}", body)
            assert made.status == 201, made.body
            started = self.api.post(f"/containers/{self.mark}-{short}/start")
            assert started.status == 204, started.body
            self.documents[short] = self.api.get(f"/containers/{self.mark}-{short}/json").json
        for network in (*NETWORKS, "bridge"):
            document = self.api.get(f"/networks/{self.name(network)}").json
            found = ["", ""]
            for config in document["IPAM"]["Config"]:
                found[":" in config["Subnet"]] = config.get("Gateway", "")
            self.gateways[network] = (found[0], found[1])

    def address(self, target: str, network: str, version: int) -> str:
        if target.startswith("gw:"):
            return self.gateways[target[3:]][version == 6]
        settings = self.documents[target]["NetworkSettings"]["Networks"][self.name(network)]
        return str(settings["GlobalIPv6Address" if version == 6 else "IPAddress"])

    def urls(self, source: str) -> set[str]:
        found = {
            self.url(target, network, version) for s, target, network, _ in MATRIX if s == source for version in (4, 6)
        }
        found |= {f"http://{self.address(target, '', 4)}:{port}/" for s, target, port, _ in PUBLISHED if s == source}
        return found - {""}

    def url(self, target: str, network: str, version: int) -> str:
        address = self.address(target, network, version)
        if not address:
            return ""
        return f"http://[{address}]:81/" if version == 6 else f"http://{address}:80/"

    def ask(self) -> None:
        """Every container asks all it has to at once: a packet that is dropped is not answered for seconds."""
        for source in sorted({row[0] for row in (*MATRIX, *PUBLISHED)}):
            urls = sorted(self.urls(source))
            lines = [
                f"(timeout 3 wget -q -O - {url} >/dev/null 2>&1 && touch /yes.{n}; touch /done.{n}) &"
                for n, url in enumerate(urls)
            ]
            self._exec(source, "\n".join([*lines, "wait"]), detach=True)
        for source in sorted({row[0] for row in (*MATRIX, *PUBLISHED)}):
            urls = sorted(self.urls(source))
            wait_until(lambda s=source, u=urls: self._listing(s).count("/done.") == len(u), 15, f"{source} has asked")  # type: ignore[misc]
            listing = self._listing(source).split()
            for number, url in enumerate(urls):
                self.answers[source, url] = f"/yes.{number}" in listing

    def _listing(self, source: str) -> str:
        return self._exec(source, "echo /done.* /yes.*")

    def _exec(self, source: str, script: str, *, detach: bool = False) -> str:
        made = self.api.post(
            f"/containers/{self.mark}-{source}/exec",
            {"Cmd": ["sh", "-c", script], "AttachStdout": not detach, "Tty": True},
        )
        answer = self.api.post(f"/exec/{made.json['Id']}/start", {"Detach": detach, "Tty": True})
        return answer.body.decode(errors="replace")

    def tear_down(self) -> None:
        for short in CONTAINERS:
            self.api.request("DELETE", f"/containers/{self.mark}-{short}?force=1&v=1")
        for network in NETWORKS:
            self.api.request("DELETE", f"/networks/{self.name(network)}")


@pytest.fixture(scope="module")
def world(host: str, image: str) -> Iterator[World]:
    api = Api(host)
    made = World(api, image)
    try:
        made.build()
        made.ask()
        yield made
    finally:
        made.tear_down()
        api.close()


def test_who_reaches_whom(world: World) -> None:
    """In one test, since the world is built once and holds ports of the host."""
    wrong = []
    for source, target, network, reached in MATRIX:
        for version in (4, 6):
            url = world.url(target, network, version)
            if url and world.answers[source, url] is not reached:
                wrong.append(f"{source} and {target} on {network} over IPv{version}: not {reached}")
    for source, target, port, reached in PUBLISHED:
        if world.answers[source, f"http://{world.address(target, '', 4)}:{port}/"] is not reached:
            wrong.append(f"{source} and {target}:{port}: not {reached}")
    assert wrong == []
    _check_shown(world)


def _check_shown(world: World) -> None:
    shown = world.documents["anna"]["NetworkSettings"]["Ports"]
    assert shown == {"80/tcp": [{"HostIp": ip, "HostPort": "18471"} for ip in ("0.0.0.0", "::")]}
    assert world.documents["bert"]["NetworkSettings"]["Ports"] == {"80/tcp": None}
    for short, (networks, _) in CONTAINERS.items():
        document = world.documents[short]["NetworkSettings"]
        assert list(document["Networks"]) == sorted(world.name(network) for network in networks)
        for settings in document["Networks"].values():
            assert settings["EndpointID"]
            assert json.dumps(settings["MacAddress"])
