"""Limits: what each engine refuses, what the kernel then holds, and what an update changes in a running container."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from daemon import PEER
from engine_client import Api

M = 1 << 20
pytestmark = pytest.mark.skipif(
    Path("/sys/fs/cgroup/cgroup.controllers").exists(), reason="the file names are cgroup v1's"
)


def disk() -> str:
    """A block device whose rates can be limited."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "zram", "ram")) and Path(f"/dev/{name}").exists():
            return f"/dev/{name}"
    pytest.skip("there is no disk")


def refusal(api: Api, image: str, name: str, host: dict[str, Any], **config: Any) -> str:
    """What is said against it by create, or else by start; "" for nothing."""
    made = api.post(f"/containers/create?name={name}", {"Image": image, "Cmd": ["true"], "HostConfig": host, **config})
    if made.status != 201:
        assert made.status in (400, 500), made.body
        return str(made.message)
    started = api.post(f"/containers/{made.json['Id']}/start")
    return "" if started.status == 204 else started.message


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"Memory": 1 * M}, "^Minimum memory limit allowed is 6MB$"),
        ({"Memory": 64 * M, "MemorySwap": 32 * M}, "^Minimum memoryswap limit should be larger than memory limit"),
        ({"MemorySwap": 32 * M}, "^You should always set the Memory limit when using Memoryswap limit, see usage$"),
        ({"MemorySwappiness": 101}, "^Invalid value: 101, valid memory swappiness range is 0-100$"),
        ({"MemoryReservation": 1 * M}, "^Minimum memory reservation allowed is 6MB$"),
        ({"Memory": 64 * M, "MemoryReservation": 65 * M}, "^Minimum memory limit can not be less than memory reserv"),
        ({"NanoCpus": 10**9, "CpuPeriod": 10000}, "^Conflicting options: Nano CPUs and CPU Period cannot both be set$"),
        ({"NanoCpus": 10**9, "CpuQuota": 10000}, "^Conflicting options: Nano CPUs and CPU Quota cannot both be set$"),
        ({"NanoCpus": 10**12}, r"^range of CPUs is from 0\.01 to \d+\.00, as there are only \d+ CPUs available$"),
        ({"CpuShares": -1}, r"^invalid CPU shares \(-1\): value must be a positive integer$"),
        ({"CpuShares": 1}, "the minimum allowed cpu-shares is 2$"),
        ({"CpuShares": 1 << 20}, "the maximum allowed cpu-shares is 262144$"),
        ({"CpuPeriod": 1}, "^CPU cfs period can not be less than 1ms"),
        ({"CpuQuota": 1}, "^CPU cfs quota can not be less than 1ms"),
        ({"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 2000}, "^cpu real-time runtime cannot be higher than"),
        ({"CpusetCpus": "a"}, "^Invalid value a for cpuset cpus: invalid format: a$"),
        ({"CpusetCpus": "1-0"}, "^Invalid value 1-0 for cpuset cpus: invalid format: 1-0$"),
        ({"CpusetCpus": "0,9000"}, "^Invalid value 0,9000 for cpuset cpus: value of out range, maximum is 8192$"),
        ({"CpusetCpus": "8000"}, r"^Requested CPUs are not available - requested 8000, available: "),
        ({"CpusetMems": "63"}, "^Requested memory nodes are not available - requested 63, available: "),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/nope", "Rate": 1}]}, "^stat /dev/nope: no such file or directory$"),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1000000}]}, "no such device$"),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": -1}]}, "BlkioDeviceReadBps|negative"),
        ({"IOMaximumIOps": 1}, "^invalid option: QoS maximum IOPs configuration is not supported on linux$"),
        ({"IOMaximumBandwidth": 1}, "^invalid option: QoS maximum bandwidth configuration is not supported on linux$"),
        ({"ShmSize": -1}, "^SHM size can not be less than 0$"),
        ({"OomScoreAdj": 2000}, r"^Invalid value 2000, range for oom score adj is \[-1000, 1000\]$"),
        ({"Ulimits": [{"Name": "bad", "Soft": 1, "Hard": 1}]}, "(?i)bad$"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 1}]}, "limit"),
        ({"DeviceCgroupRules": ["c 1:3"]}, "^invalid device cgroup rule format: 'c 1:3'$"),
        ({"DeviceCgroupRules": ["c 1:3 wwww"]}, "^invalid device cgroup rule format: 'c 1:3 wwww'$"),
        (
            {"DeviceCgroupRules": ["c 99999999999999999999:3 r"]},
            "^invalid major value in device cgroup rule format: 'c 99999999999999999999:3 r'$",
        ),
        (
            {"Devices": [{"PathOnHost": "/dev/nope", "PathInContainer": "/dev/x"}]},
            "^error gathering device information",
        ),
        ({"Devices": [{"PathOnHost": "/etc/passwd", "PathInContainer": "/dev/x"}]}, "not a device node$"),
        ({"Isolation": "hyperv"}, r"^invalid isolation \(hyperv\): linux only supports 'default'$"),
    ],
)
def test_refusals(api: Api, image: str, name: str, asked: dict[str, Any], message: str) -> None:
    said = refusal(api, image, name, {"NetworkMode": "none", **asked})
    assert re.search(message, said), said


def test_warnings(api: Api, image: str, name: str) -> None:
    host = {"OomKillDisable": True, "CpuPercent": 5}
    made = api.post(f"/containers/create?name={name}", {"Image": image, "HostConfig": host})
    assert made.status == 201
    assert made.json["Warnings"] == [
        "linux does not support CPU percent. Percent discarded.",
        "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
        "out of resources.",
    ] or made.json["Warnings"][::-1] == [
        "linux does not support CPU percent. Percent discarded.",
        "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
        "out of resources.",
    ]
    assert api.get(f"/containers/{name}/json").json["HostConfig"]["CpuPercent"] == 0


FILES = {
    "memory": (
        "limit_in_bytes",
        "memsw.limit_in_bytes",
        "soft_limit_in_bytes",
        "swappiness",
        "kmem.tcp.limit_in_bytes",
    ),
    "cpu": ("shares", "cfs_period_us", "cfs_quota_us"),
    "cpuset": ("cpus", "mems"),
    "pids": ("max",),
}


def held(api: Api, name: str) -> dict[str, str]:
    """The limits in the kernel, by short file name, as the container itself reads them."""
    paths = [f"/sys/fs/cgroup/{kind}/{kind}.{file}" for kind, files in FILES.items() for file in files]
    paths += [
        f"/sys/fs/cgroup/blkio/blkio.throttle.{kind}_{unit}_device" for kind in ("read", "write") for unit in _UNITS
    ]
    script = "; ".join(f"echo {path}=$(cat {path})" for path in paths)
    made = api.post(f"/containers/{name}/exec", {"Cmd": ["sh", "-c", script], "AttachStdout": True, "Tty": True})
    with api.hijack(f"/exec/{made.json['Id']}/start", b'{"Tty":true}') as stream:
        lines = stream.rest().decode().split("\r\n")
    return {line.partition("=")[0].rpartition("/")[2]: line.partition("=")[2] for line in lines if "=" in line}


_UNITS = ("bps", "iops")


def limited(device: str) -> dict[str, Any]:
    return {
        "Memory": 64 * M,
        "MemorySwap": 96 * M,
        "MemoryReservation": 32 * M,
        "MemorySwappiness": 7,
        "KernelMemoryTCP": 16 * M,
        "CpuShares": 512,
        "CpuPeriod": 50000,
        "CpuQuota": 25000,
        "CpusetCpus": "0",
        "CpusetMems": "0",
        "PidsLimit": 33,
        "BlkioDeviceReadBps": [{"Path": device, "Rate": 5 * M}],
        "BlkioDeviceWriteBps": [{"Path": device, "Rate": 6 * M}],
        "BlkioDeviceReadIOps": [{"Path": device, "Rate": 500}],
        "BlkioDeviceWriteIOps": [{"Path": device, "Rate": 600}],
    }


def test_limits_reach_the_kernel(api: Api, image: str, name: str) -> None:
    device = disk()
    number = os.stat(device).st_rdev
    host = {"NetworkMode": "none", **limited(device)}
    api.run(name, Image=image, Cmd=["sleep", "1000"], HostConfig=host)
    found = held(api, name)
    # dockerd takes KernelMemoryTCP and never sets it.
    tcp = found.pop("memory.kmem.tcp.limit_in_bytes")
    assert PEER or tcp == str(16 * M)
    rate = f"{os.major(number)}:{os.minor(number)} "
    assert found == {
        "memory.limit_in_bytes": str(64 * M),
        "memory.memsw.limit_in_bytes": str(96 * M),
        "memory.soft_limit_in_bytes": str(32 * M),
        "memory.swappiness": "7",
        "cpu.shares": "512",
        "cpu.cfs_period_us": "50000",
        "cpu.cfs_quota_us": "25000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "33",
        "blkio.throttle.read_bps_device": f"{rate}{5 * M}",
        "blkio.throttle.write_bps_device": f"{rate}{6 * M}",
        "blkio.throttle.read_iops_device": f"{rate}500",
        "blkio.throttle.write_iops_device": f"{rate}600",
    }


def test_an_update_of_a_running_container_holds_after_a_restart(api: Api, image: str, name: str) -> None:
    host = {"NetworkMode": "none", "Memory": 64 * M, "PidsLimit": 50}
    api.run(name, Image=image, Cmd=["sleep", "1000"], HostConfig=host)
    change = {
        "Memory": 128 * M,
        "MemorySwap": 256 * M,
        "MemoryReservation": 48 * M,
        "CpuShares": 256,
        "CpuPeriod": 20000,
        "CpuQuota": 10000,
        "CpusetCpus": "0",
        "PidsLimit": -1,
    }
    updated = api.post(f"/containers/{name}/update", change)
    assert (updated.status, updated.json["Warnings"]) == (200, None)
    expected = {
        "memory.limit_in_bytes": str(128 * M),
        "memory.memsw.limit_in_bytes": str(256 * M),
        "memory.soft_limit_in_bytes": str(48 * M),
        "cpu.shares": "256",
        "cpu.cfs_period_us": "20000",
        "cpu.cfs_quota_us": "10000",
        "cpuset.cpus": "0",
        "pids.max": "max",
    }
    for _ in range(2):
        found = held(api, name)
        assert {key: found[key] for key in expected} == expected
        shown = api.get(f"/containers/{name}/json").json["HostConfig"]
        assert (shown["Memory"], shown["MemorySwap"], shown["CpuShares"], shown["PidsLimit"]) == (
            128 * M,
            256 * M,
            256,
            0,
        )
        assert api.post(f"/containers/{name}/restart?t=0").status == 204


@pytest.mark.parametrize(
    ("before", "change", "status", "message"),
    [
        (
            {"Memory": 64 * M, "MemorySwap": 128 * M},
            {"Memory": 256 * M},
            409,
            "update the memoryswap at the same time$",
        ),
        ({"CpuPeriod": 50000}, {"NanoCpus": 5 * 10**8}, 409, "Nano CPUs cannot be updated as CPU Period has already"),
        ({"NanoCpus": 5 * 10**8}, {"CpuQuota": 50000}, 409, "CPU Quota cannot be updated as NanoCPUs has already"),
        ({}, {"Memory": 1 * M}, 400, "^Minimum memory limit allowed is 6MB$"),
        ({}, {"CpusetCpus": "8000"}, 400, "^Requested CPUs are not available"),
        ({"AutoRemove": True}, {"RestartPolicy": {"Name": "always"}}, 409, "Restart policy cannot be updated because"),
        ({}, {"RestartPolicy": {"Name": "foo"}}, 400, "^invalid restart policy: unknown policy 'foo'"),
    ],
)
def test_updates_refused(
    api: Api, image: str, name: str, before: dict[str, Any], change: dict[str, Any], status: int, message: str
) -> None:
    id = api.create(name, Image=image, Cmd=["true"], HostConfig=before)
    answer = api.post(f"/containers/{id}/update", change)
    assert answer.status == status
    assert re.search(message, answer.message), answer.message


def test_devices_and_the_rules_for_them(api: Api, image: str, name: str) -> None:
    host = {
        "NetworkMode": "none",
        "Devices": [
            {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"},
            {"PathOnHost": "/dev/net", "PathInContainer": "/dev/net2", "CgroupPermissions": "rwm"},
        ],
        "DeviceCgroupRules": ["c 10:229 rwm"],
        "ShmSize": 3 * M,
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
    }
    script = (
        "head -c2 /dev/mine | wc -c; echo x 2>/dev/null >/dev/mine || echo denied; ls /dev/net2; "
        "mknod /tmp/f c 10 229 && "
        "(: </tmp/f) 2>&1 | grep -c 'not permitted'; mknod /tmp/m c 1 1; (: </tmp/m) 2>&1 | grep -c 'not permitted'; "
        "df -k /dev/shm | tail -1 | awk '{print $2}'; ulimit -Sn; ulimit -Hn"
    )
    id = api.run(name, Image=image, Cmd=["sh", "-c", script], HostConfig=host)
    api.wait(id)
    log = api.get(f"/containers/{id}/logs?stdout=1").body
    # /dev/zero can be written by whom the default rules let: its own mode does not count, the list does.
    words = re.findall(rb"[a-z0-9]+", re.sub(rb"[\x00-\x02]\x00{3}.{4}", b" ", log, flags=re.DOTALL))
    assert [word.decode() for word in words if word != b"denied"] == ["2", "tun", "0", "1", "3072", "100", "200"]


@pytest.mark.skipif(bool(PEER), reason="dockerd takes it and forgets it")
def test_kernel_memory_is_refused_by_name(api: Api, image: str, name: str) -> None:
    assert "KernelMemory" in refusal(api, image, name, {"KernelMemory": 64 * M})
    api.create(name, Image=image, HostConfig={"KernelMemory": 0})
    assert api.post(f"/containers/{name}/update", {"KernelMemory": 64 * M}).status == 400
