"""What is done with limits that are wrong, that this kernel cannot set, or that an update changes."""

from typing import Any

import pytest

from wherry.engine.limits import merge_limits, settle_limits
from wherry.engine.resources import limit_changes, limits
from wherry.errors import Conflict, InvalidArgument
from wherry.kernel.cgroups.layout import Layout
from wherry.kernel.cgroups.support import Support, detect
from wherry.spec.decode import decode
from wherry.spec.docker import HostConfig

M = 1 << 20
ALL = Support(*[True] * len(Support._fields))
NONE = Support(*[False] * len(Support._fields))


def host(**fields: Any) -> HostConfig:
    return decode(HostConfig, fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Memory": 1 * M}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": -5}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 64 * M, "MemorySwap": 32 * M}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"MemorySwap": 32 * M}, "You should always set the Memory limit"),
        ({"MemorySwappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"MemoryReservation": 1 * M}, "Minimum memory reservation allowed is 6MB"),
        ({"NanoCpus": 1}, "range of CPUs is from 0.01"),
        ({"CpuShares": 1}, "the minimum allowed cpu-shares is 2"),
        ({"CpuShares": 1 << 20}, "the maximum allowed cpu-shares is 262144"),
        ({"CpuRealtimePeriod": 1, "CpuRealtimeRuntime": 2}, "real-time runtime cannot be higher"),
        ({"CpusetCpus": "1-0"}, "invalid format: 1-0"),
        ({"CpusetCpus": "0,"}, "invalid format: 0,"),
        ({"CpusetCpus": "9" * 5000}, "value of out range, maximum is 8192"),
        ({"CpusetCpus": "8192"}, "Requested CPUs are not available"),
        ({"BlkioWeightDevice": [{"Path": "/dev/x", "Weight": 5}]}, "Range of blkio weight is from 10 to 1000"),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/x", "Rate": -1}]}, "cannot be negative"),
        ({"IOMaximumIOps": 1}, "not supported on linux"),
    ],
)
def test_wrong_limits(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        settle_limits(host(**fields), ALL)


def test_what_the_kernel_cannot_limit_is_said_and_taken_out() -> None:
    asked = host(
        Memory=64 * M,
        MemorySwappiness=5,
        OomKillDisable=True,
        PidsLimit=5,
        CpuShares=5,
        CpuRealtimePeriod=10000,
        CpuPercent=5,
        BlkioWeight=100,
        BlkioDeviceWriteIOps=[{"Path": "/dev/x", "Rate": 5}],
    )
    settled, warnings = settle_limits(asked, NONE)
    assert len(warnings) == 9
    assert limits(settled) == {"memory": {"swap": -1}}
    kept, warnings = settle_limits(asked, ALL)
    assert warnings == ["linux does not support CPU percent. Percent discarded."]
    assert kept.memory_swappiness == 5


def test_layouts_of_today() -> None:
    v2 = detect(Layout({}, "/nonexistent"))
    assert not any(v2)
    v1 = detect(Layout({"cpu": "/nonexistent"}, None))
    assert not any(v1)


def test_an_update_keeps_what_it_does_not_name() -> None:
    before = host(Memory=64 * M, MemorySwap=128 * M, PidsLimit=7, CpusetCpus="0")
    after, _ = merge_limits(before, host(CpuShares=512), ALL)
    assert (after.memory, after.pids_limit, after.cpuset_cpus, after.cpu_shares) == (64 * M, 7, "0", 512)
    unlimited, _ = merge_limits(before, host(PidsLimit=-1, MemorySwap=-1), ALL)
    assert (unlimited.pids_limit, unlimited.memory_swap) == (0, -1)
    assert limits(unlimited)["pids"] == {"limit": -1}


@pytest.mark.parametrize(
    ("before", "change", "message"),
    [
        ({"Memory": 64 * M, "MemorySwap": 128 * M}, {"Memory": 256 * M}, "update the memoryswap at the same time"),
        ({"CpuPeriod": 50000}, {"NanoCpus": 10**9}, "Nano CPUs cannot be updated as CPU Period has already been set"),
        ({"CpuQuota": 50000}, {"NanoCpus": 10**9}, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"NanoCpus": 10**9}, {"CpuPeriod": 50000}, "CPU Period cannot be updated as NanoCPUs has already been set"),
    ],
)
def test_updates_that_conflict(before: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(Conflict, match=message):
        merge_limits(host(**before), host(**change), ALL)


def test_updates_of_what_is_fixed_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="ulimits"):
        merge_limits(host(), host(Ulimits=[{"Name": "nofile", "Soft": 1, "Hard": 1}]), ALL)


def test_a_throttle_that_is_dropped_ends() -> None:
    from pathlib import Path

    disks = [f"/dev/{name}" for name in ("loop0", "loop1", "vda", "vdb", "sda", "sdb") if Path(f"/dev/{name}").exists()]
    if len(disks) < 2:
        pytest.skip("needs two block devices")
    before, after = (host(BlkioDeviceReadBps=[{"Path": disk, "Rate": 1000}]) for disk in disks[:2])
    rates = [entry["rate"] for entry in limit_changes(before, after)["blockIO"]["throttleReadBpsDevice"]]
    assert rates == [1000, 0]
