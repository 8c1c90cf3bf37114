from ipaddress import IPv4Network

from wherry.network import rules
from wherry.network.endpoint import Endpoint, PublishedPort

OPTIONS = rules.TableOptions("t", "br9", IPv4Network("10.0.0.0/24"), True, True, ())
ENDPOINT = Endpoint(
    "s",
    None,
    "bridge",
    "n",
    "bridge",
    "e",
    ipv4="10.0.0.2",
    ports=(
        PublishedPort(80, "tcp", "0.0.0.0", 8080),
        PublishedPort(53, "udp", "0.0.0.0", 5353),
        PublishedPort(81, "tcp", "127.0.0.1", 8081),
    ),
)


def test_publishing_is_one_element_each_and_withdrawing_names_the_keys_only() -> None:
    assert rules.publish("t", ENDPOINT) == (
        "add element ip t published { tcp . 8080 : 10.0.0.2 . 80, udp . 5353 : 10.0.0.2 . 53 }\n"
        "add element ip t published_at { 127.0.0.1 . tcp . 8081 : 10.0.0.2 . 81 }\n"
    )
    assert rules.withdraw("t", ENDPOINT) == (
        "delete element ip t published { tcp . 8080, udp . 5353 }\n"
        "delete element ip t published_at { 127.0.0.1 . tcp . 8081 }\n"
    )


def test_no_ports_no_commands() -> None:
    assert rules.publish("t", Endpoint("s", None, "bridge", "n", "bridge", "e")) == ""


def test_the_table_replaces_only_itself_and_brings_back_what_is_published() -> None:
    text = rules.table(OPTIONS, [ENDPOINT])
    assert text.startswith("add table ip t\ndelete table ip t\ntable ip t {\n")
    assert text.endswith(rules.publish("t", ENDPOINT))
    assert "flush ruleset" not in text


def test_options_change_the_rules() -> None:
    changed = rules.table(OPTIONS._replace(icc=False, masquerade=False, closed_links=("eth0", "eth1")), [])
    assert 'oifname "br9" ct status dnat accept' in changed
    assert "10.0.0.0/24 oifname" not in changed
    assert 'iifname { "eth0", "eth1" } oifname { "eth0", "eth1" } drop' in changed
