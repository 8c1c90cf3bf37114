"""JSON keys as Go's encoding/json reads them."""

import pytest

from wherry.errors import InvalidArgument
from wherry.spec.decode import decode
from wherry.spec.docker import HostConfig


def test_case_does_not_count_in_keys() -> None:
    assert decode(HostConfig, {"memory": 5, "PIDSLIMIT": 6, "uTSMode": "host", "unknown": 1}) == HostConfig(
        memory=5, pids_limit=6, uts_mode="host"
    )
    # Whatever its spelling, the last counts: nobody can be shown another value than the one that is taken.
    assert decode(HostConfig, {"privileged": False, "Privileged": True}).privileged
    assert not decode(HostConfig, {"Privileged": True, "privileged": False}).privileged
    with pytest.raises(InvalidArgument, match=r"restartpolicy\.NAME must be a string"):
        decode(HostConfig, {"restartpolicy": {"NAME": 5}})
