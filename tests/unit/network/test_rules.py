import pytest

from wherry.network import rules
from wherry.network.endpoint import Endpoint, PublishedPort
from wherry.network.rules import Segment

SHOP = Segment("shop", "br9", ("10.0.0.0/24",), ("fd00:9::/64",))
ENDPOINT = Endpoint(
    "s",
    None,
    "bridge",
    "n",
    "bridge",
    "e",
    ipv4="10.0.0.2",
    ipv6="fd00:9::2",
    ports=(
        PublishedPort(80, "tcp", "0.0.0.0", 8080),
        PublishedPort(53, "udp", "0.0.0.0", 5353),
        PublishedPort(81, "tcp", "127.0.0.1", 8081),
        PublishedPort(1000, "tcp", "0.0.0.0", 1000, 60000),
        PublishedPort(10, "udp", "::", 20, 2),
        PublishedPort(443, "tcp", "::", 0),
    ),
)


def test_publishing_is_one_element_each() -> None:
    assert rules.publish("t", ENDPOINT) == (
        "add element inet t ports4 { tcp . 8080 : 10.0.0.2 . 80, udp . 5353 : 10.0.0.2 . 53 }\n"
        "add element inet t ports4_at { 127.0.0.1 . tcp . 8081 : 10.0.0.2 . 81 }\n"
        "add element inet t spans4 { tcp . 1000-60999 : 10.0.0.2 }\n"
        "add element inet t ports6 { udp . 20 : fd00:9::2 . 10, udp . 21 : fd00:9::2 . 11 }\n"
        "add element inet t open6 { fd00:9::2 . tcp . 443 }\n"
    )


def test_elements_are_packed_as_the_kernel_has_them() -> None:
    one, span = PublishedPort(80, "tcp", "0.0.0.0", 8080), PublishedPort(20, "udp", "::", 20, 3)
    there = Endpoint("s", None, "bridge", "n", "bridge", "e", ipv4="10.0.0.2", ipv6="fd00::2", ports=(one, span))
    gone, more = rules.changes(rules.elements(there), ()), rules.changes((), rules.elements(there))
    assert [(change.add, change.set) for change in gone + more] == [
        *((False, "ports4"), (False, "spans6")),
        *((True, "ports4"), (True, "spans6")),
    ]
    key = bytes.fromhex("06000000 1f900000")
    assert key in gone[0].elements[0]
    assert key in more[0].elements[0]
    value = bytes.fromhex("0a000002 00500000")
    assert value in more[0].elements[0]
    assert value not in gone[0].elements[0]
    for ends in ("11000000 00140000", "11000000 00160000"):
        assert bytes.fromhex(ends) in gone[1].elements[0]


def test_no_ports_no_commands() -> None:
    assert rules.publish("t", Endpoint("s", None, "bridge", "n", "bridge", "e")) == ""


def test_the_table_replaces_only_itself_and_brings_back_what_there_is() -> None:
    text = rules.table(rules.TableOptions("t", ("eth0", "eth1")), [SHOP], [ENDPOINT])
    assert text.startswith("add table inet t\ndelete table inet t\ntable inet t {\n")
    assert text.endswith(rules.add_segment("t", SHOP) + rules.publish("t", ENDPOINT))
    assert "flush ruleset" not in text
    assert 'iifname { "eth0", "eth1" } oifname { "eth0", "eth1" } drop' in text


@pytest.mark.parametrize(
    ("segment", "there", "missing"),
    [
        (SHOP, ['iifname "br9" accept', 'oifname != "br9" masquerade', "homes4 { 10.0.0.0/24"], ["leave_shop"]),
        (SHOP._replace(icc=False), ['iifname "br9" ct status dnat accept'], ['iifname "br9" accept']),
        (SHOP._replace(masquerade=False), [], ['oifname != "br9" masquerade']),
        (
            SHOP._replace(internal=True),
            ['leave_shop oifname != "br9" drop'],
            ['iifname != "br9" ct status dnat accept'],
        ),
        (SHOP._replace(mode4="routed"), ["@open4 accept", "homes6 {"], ["homes4 {", "@open6"]),
        (SHOP._replace(mode6="nat-unprotected"), ["nfproto ipv6 accept", "homes4 {"], ["homes6 {"]),
        (SHOP._replace(snat4="192.0.2.9"), ["snat ip to 192.0.2.9"], []),
        (SHOP._replace(trusted=("wg0",)), ['iifname != { "lo", "br9", "wg0" } drop'], []),
    ],
)
def test_options_change_the_rules(segment: Segment, there: list[str], missing: list[str]) -> None:
    text = rules.add_segment("t", segment)
    assert [piece for piece in there if piece not in text] == []
    assert [piece for piece in missing if piece in text] == []


def test_what_is_added_is_removed() -> None:
    for segment in (SHOP, SHOP._replace(internal=True), SHOP._replace(mode4="routed", subnets6=())):
        added, removed = rules.add_segment("t", segment), rules.remove_segment("t", segment)
        chains = {line.split()[4] for line in added.splitlines() if line.startswith("add chain")}
        assert chains == {line.split()[4] for line in removed.splitlines() if line.startswith("delete chain")}
        maps = {line.split()[4] for line in added.splitlines() if line.startswith("add element")}
        assert maps == {line.split()[4] for line in removed.splitlines() if line.startswith("delete element")}
