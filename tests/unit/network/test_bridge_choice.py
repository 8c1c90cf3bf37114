from ipaddress import IPv4Network, ip_network

import pytest

from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.network.bridge import parse_bip
from wherry.network.pools import DEFAULT_POOLS, Pool, choose, parse_pools, unique_local


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], "172.17.0.0/16"),
        (["10.0.0.0/8", "172.17.5.0/24"], "172.18.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.1.0/24", "192.168.16.7/32", "fd00::/8"], "192.168.32.0/20"),
    ],
)
def test_the_first_pool_that_meets_nothing(taken: list[str], chosen: str) -> None:
    assert str(choose(DEFAULT_POOLS, 4, map(ip_network, taken))) == chosen


def test_no_pool_left() -> None:
    with pytest.raises(FailedPrecondition, match="non-overlapping"):
        choose(DEFAULT_POOLS, 4, [IPv4Network("128.0.0.0/1")])
    with pytest.raises(FailedPrecondition, match="non-overlapping"):
        choose(parse_pools([("10.0.0.0/30", 31)]), 4, [IPv4Network("10.0.0.0/31"), IPv4Network("10.0.0.2/32")])


def test_a_wide_pool_of_ipv6_is_searched_at_once() -> None:
    pool = Pool(ip_network("fd00::/16"), 80)
    taken = [ip_network("fd00::/20"), ip_network("fd00:1000::/80")]
    assert str(choose([pool], 6, taken)) == "fd00:1000:0:0:1::/80"
    own = unique_local("x")
    assert own.base.is_private
    assert choose([own], 6, []).subnet_of(own.base)  # type: ignore[arg-type]
    assert own == unique_local("x") != unique_local("y")


@pytest.mark.parametrize("entry", [("10.0.0.0/8", 7), ("10.0.0.1/8", 16), ("x", 16), ("10.0.0.0/8", 33)])
def test_bad_pools(entry: tuple[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        parse_pools([entry])


@pytest.mark.parametrize("text", ["", "172.17.0.1", "172.17.0.0/16", "172.17.255.255/16", "1.2.3.4/31", "fd00::1/64"])
def test_bad_bridge_addresses(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_bip(text)
