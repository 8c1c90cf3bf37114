from ipaddress import IPv4Network

import pytest

from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.network.bridge import free_subnet, parse_bip


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], "172.17.0.0/16"),
        (["10.0.0.0/8", "172.17.5.0/24"], "172.18.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.1.0/24", "192.168.16.7/32"], "192.168.32.0/20"),
    ],
)
def test_the_first_pool_that_meets_nothing(taken: list[str], chosen: str) -> None:
    assert str(free_subnet(map(IPv4Network, taken))) == chosen


def test_no_pool_left() -> None:
    with pytest.raises(FailedPrecondition, match="non-overlapping"):
        free_subnet([IPv4Network("128.0.0.0/1")])


@pytest.mark.parametrize("text", ["", "172.17.0.1", "172.17.0.0/16", "172.17.255.255/16", "1.2.3.4/31", "fd00::1/64"])
def test_bad_bridge_addresses(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_bip(text)
