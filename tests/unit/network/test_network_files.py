from pathlib import Path

import pytest

from wherry.errors import InvalidArgument
from wherry.network import hosts, resolvconf
from wherry.network.endpoint import Endpoint, PublishedPort

HOST = """\
# a comment
nameserver 127.0.0.53
nameserver 192.0.2.53 ; and another
nameserver fd00::53
domain old.example
search a.example b.example
options edns0
options trust-ad
"""


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_resolvers_a_container_cannot_reach_are_left_out() -> None:
    text = resolvconf.render(HOST, own_namespace=True)
    assert directives(text) == ["nameserver 192.0.2.53", "search a.example b.example", "options edns0 trust-ad"]


def test_the_hosts_namespace_reaches_all_of_the_hosts_resolvers() -> None:
    servers = [line for line in directives(resolvconf.render(HOST, own_namespace=False)) if "nameserver" in line]
    assert servers == ["nameserver 127.0.0.53", "nameserver 192.0.2.53", "nameserver fd00::53"]


def test_public_resolvers_when_none_is_left() -> None:
    text = resolvconf.render("nameserver 127.0.0.1\n", own_namespace=True)
    assert directives(text) == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]


def test_what_is_given_replaces_what_the_host_says() -> None:
    text = resolvconf.render(HOST, own_namespace=True, dns=["127.0.0.1"], search=["."], options=["ndots:2"])
    assert directives(text) == ["nameserver 127.0.0.1", "options ndots:2"]
    assert "# Overrides: [nameservers search options]" in text


@pytest.mark.parametrize("dns", ["example.com", "1.2.3.4\nnameserver 6.6.6.6", ""])
def test_a_resolver_must_be_an_address(dns: str) -> None:
    with pytest.raises(InvalidArgument):
        resolvconf.render(HOST, own_namespace=True, dns=[dns])


def test_hosts_has_dockers_lines() -> None:
    extra = ["foo:1.2.3.4", "gw=host-gateway", "six:[2001:db8::1]", "seven:2001:db8::7"]
    text = hosts.render(hostname="box.example", addresses=["172.17.0.4"], extra=extra, gateway="172.17.0.1")
    assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert text.splitlines()[6:] == [
        "1.2.3.4\tfoo",
        "172.17.0.1\tgw",
        "2001:db8::1\tsix",
        "2001:db8::7\tseven",
        "172.17.0.4\tbox.example box",
    ]


def test_hosts_of_a_container_without_network_and_on_the_hosts() -> None:
    assert "box" not in hosts.render(hostname="box")
    assert hosts.render(hostname="box", host="127.0.0.1 me", extra=["a:1.1.1.1"]) == "127.0.0.1 me\n1.1.1.1\ta\n"


@pytest.mark.parametrize(
    "entry", ["foo", ":1.2.3.4", "foo:", "foo:bar", "foo:1.2.3.4\n6.6.6.6 bank", "gw:host-gateway"]
)
def test_bad_extra_hosts(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        hosts.render(extra=[entry])


def test_an_endpoint_survives_json() -> None:
    port = PublishedPort(80, "tcp", "0.0.0.0", 8080)
    endpoint = Endpoint("a1", Path("/run/x"), "bridge", "b2", "bridge", "c3", ipv4="10.0.0.2", prefix=8, ports=(port,))
    assert Endpoint.from_json(endpoint.to_json()) == endpoint
    isolated = Endpoint("a1", None, "host", "b2", "host", "c3")
    assert Endpoint.from_json(isolated.to_json()) == isolated
