"""Networks by the real docker client: made, joined while containers run and while they do not, shown, removed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine_client import Api, DockerCli

IFNAME = "com.docker.network.endpoint.ifname"


@pytest.fixture
def net(host: str, name: str) -> Iterator[str]:
    """What networks' names begin with; they are gone after the test, and the containers before them."""
    yield name
    client = Api(host)
    for container in client.get(f'/containers/json?all=1&filters={{"name":["{name}"]}}').json:
        client.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    # Those that others take their configuration from go last.
    networks = client.get("/networks").json
    for network in sorted(networks, key=lambda network: bool(network["ConfigOnly"])):
        if network["Name"].startswith(name):
            client.request("DELETE", f"/networks/{network['Id']}")
    client.close()


def networks_of(docker: DockerCli, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", container).out)
    return found


def routes(docker: DockerCli, container: str) -> str:
    return docker("exec", container, "ip", "route").out


def test_a_container_moves_between_networks_while_it_runs(docker: DockerCli, image: str, net: str) -> None:
    subnets = {f"{net}-a": "10.231.1.0/24", f"{net}-b": "10.231.2.0/24"}
    for network, subnet in subnets.items():
        docker("network", "create", "--subnet", subnet, "--gateway", subnet.replace("0/24", "254"), network)
    first, second = subnets
    docker(
        "run",
        "-d",
        "--name",
        net,
        "--network",
        first,
        "--ip",
        "10.231.1.7",
        "--network-alias",
        "web",
        image,
        "sleep",
        "600",
    )
    docker(
        "network", "connect", "--alias", "shop", "--ip", "10.231.2.9", "--driver-opt", f"{IFNAME}=back0", second, net
    )
    shown = networks_of(docker, net)
    assert list(shown) == [first, second]
    assert [shown[name]["IPAddress"] for name in subnets] == ["10.231.1.7", "10.231.2.9"]
    assert [shown[name]["Aliases"] for name in subnets] == [["web"], ["shop"]]
    assert [shown[name]["Gateway"] for name in subnets] == ["10.231.1.254", "10.231.2.254"]
    assert shown[first]["DNSNames"][:2] == [net, "web"]
    assert "default via 10.231.1.254 dev eth0" in routes(docker, net)
    assert "10.231.2.0/24 dev back0" in routes(docker, net)
    hosts = docker("exec", net, "cat", "/etc/hosts").out
    assert "10.231.1.7\t" in hosts
    assert "10.231.2.9\t" in hosts
    docker("network", "disconnect", first, net)
    assert list(networks_of(docker, net)) == [second]
    assert "default via 10.231.2.254 dev back0" in routes(docker, net)
    assert "eth0" not in routes(docker, net)
    refused = docker("network", "rm", second, code=1)
    assert f'network {second} has active endpoints (name:"{net}"' in refused.err
    members = json.loads(docker("network", "inspect", "-f", "{{json .Containers}}", second).out)
    assert [(m["Name"], m["IPv4Address"]) for m in members.values()] == [(net, "10.231.2.9/24")]


def test_networks_of_a_container_that_does_not_run(docker: DockerCli, image: str, net: str) -> None:
    for number, network in ((3, f"{net}-a"), (4, f"{net}-b")):
        docker("network", "create", "--subnet", f"10.231.{number}.0/24", network)
    docker("create", "--name", net, "--network", f"{net}-a", image, "sleep", "600")
    docker("network", "connect", "--gw-priority", "5", f"{net}-b", net)
    shown = networks_of(docker, net)
    assert [shown[name]["IPAddress"] for name in sorted(shown)] == ["", ""]
    assert shown[f"{net}-b"]["GwPriority"] == 5
    docker("start", net)
    assert "default via 10.231.4.1 " in routes(docker, net)
    docker("stop", "-t", "0", net)
    docker("network", "disconnect", f"{net}-a", net)
    docker("start", net)
    assert list(networks_of(docker, net)) == [f"{net}-b"]
    assert "10.231.3" not in routes(docker, net)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--subnet", "10.231.9.0/24", "--gateway", "10.231.8.1", "NET"], "no matching subnet for gateway"),
        (["create", "--subnet", "10.231.9.1/24", "NET"], "invalid subnet 10.231.9.1/24: it should be 10.231.9.0/24"),
        (["create", "--subnet", "rubbish", "NET"], "invalid subnet rubbish: invalid CIDR block notation"),
        (["create", "-d", "nosuch", "NET"], 'plugin "nosuch" not found'),
        (["create", "--ipv4=false", "NET"], "IPv4 or IPv6 must be enabled"),
        (["create", "--ingress", "NET"], "ngress network can only be global scope network"),
        (["create", "-d", "overlay", "NET"], "This node is not a swarm manager"),
        (["create", "--scope", "swarm", "NET"], "cannot create a swarm scoped network when swarm is not active"),
        (["create", "bridge"], "operation is not permitted on predefined bridge network"),
        (["rm", "bridge"], "bridge is a pre-defined network and cannot be removed"),
        (["rm", "NET-nosuch"], "not found"),
        (["inspect", "NET-nosuch"], "not found"),
        (["ls", "--filter", "nosuch=1"], "invalid filter 'nosuch'"),
    ],
)
def test_refusals(docker: DockerCli, net: str, arguments: list[str], message: str) -> None:
    refused = docker("network", *(word.replace("NET", net) for word in arguments), code=1)
    assert message in refused.err
    assert docker("network", "ls", "-q", "--filter", f"name={net}").out == ""


def test_what_overlaps_or_is_taken_is_refused(docker: DockerCli, image: str, net: str) -> None:
    docker("network", "create", "--subnet", "10.231.5.0/29", f"{net}-a")
    overlap = docker("network", "create", "--subnet", "10.231.5.0/24", f"{net}-b", code=1)
    assert "Pool overlaps with other one on this address space" in overlap.err
    assert f"network with name {net}-a already exists" in docker("network", "create", f"{net}-a", code=1).err
    run = ("run", "-d", "--network", f"{net}-a")
    docker(*run, "--name", f"{net}-1", "--ip", "10.231.5.3", image, "sleep", "600")
    taken = docker(*run, "--name", f"{net}-2", "--ip", "10.231.5.3", image, "true", code=125)
    assert "failed to set up container networking: Address already in use" in taken.err
    outside = docker(*run, "--name", f"{net}-3", "--ip", "10.232.0.1", image, "true", code=125)
    assert "no configured subnet or ip-range contain the IP address 10.232.0.1" in outside.err
    for number in range(4, 8):
        docker(*run, "--name", f"{net}-{number}", image, "sleep", "600")
    full = docker(*run, "--name", f"{net}-8", image, "true", code=125)
    assert "no available IPv4 addresses on this network's address pools" in full.err


def test_configurations_filters_and_pruning(docker: DockerCli, net: str) -> None:
    docker("network", "create", "--config-only", "--subnet", "10.231.6.0/24", "--label", net, f"{net}-config")
    docker("network", "create", "--config-from", f"{net}-config", f"{net}-made")
    docker("network", "create", "--label", f"{net}=yes", "--internal", "--attachable", f"{net}-other")
    made = json.loads(docker("network", "inspect", f"{net}-made").out)[0]
    assert made["ConfigFrom"] == {"Network": f"{net}-config"}
    assert made["IPAM"]["Config"] == [{"Subnet": "10.231.6.0/24"}]
    other = json.loads(docker("network", "inspect", f"{net}-other").out)[0]
    assert (other["Internal"], other["Attachable"], other["Labels"]) == (True, True, {net: "yes"})
    used = docker("network", "rm", f"{net}-config", code=1)
    assert f'configuration network "{net}-config" is in use' in used.err

    def listed(*filters: str) -> list[str]:
        words = [word for one in filters for word in ("--filter", one)]
        out = docker("network", "ls", "--filter", f"name={net}", "--format", "{{.Name}}", *words).out
        return sorted(line.removeprefix(f"{net}-") for line in out.splitlines())

    assert listed() == ["config", "made", "other"]
    assert listed(f"label={net}") == ["config", "made", "other"]
    assert listed(f"label={net}=yes") == ["other"]
    assert listed("driver=null") == ["config"]
    assert listed("type=builtin") == []
    assert listed("type=custom", "scope=local") == ["config", "made", "other"]
    pruned = docker("network", "prune", "-f", "--filter", f"label={net}=yes").out
    assert f"{net}-other" in pruned
    assert listed() == ["config", "made"]


def test_events_of_networks(docker: DockerCli, api: Api, image: str, net: str) -> None:
    began = docker("info", "-f", "{{.SystemTime}}").out.strip()
    docker("network", "create", net)
    docker("run", "--rm", "--name", net, "--network", net, image, "true")
    docker("network", "rm", net)
    # The engine's own clock, to the nanosecond: whole seconds would cut the last events off.
    ended = docker("info", "-f", "{{.SystemTime}}").out.strip()
    span = ("--since", began, "--until", ended)
    out = docker("events", *span, "--filter", "type=network", "--format", "{{json .}}").out
    events = [json.loads(line) for line in out.splitlines()]
    mine = [event for event in events if event["Actor"]["Attributes"].get("name") == net]
    assert [event["Action"] for event in mine] == ["create", "connect", "disconnect", "destroy"]
    assert {event["Actor"]["Attributes"]["type"] for event in mine} == {"bridge"}
    assert "container" in mine[1]["Actor"]["Attributes"]
