"""What an OCI `linux.resources` object becomes on each cgroup layout, and device rules in both their forms."""

import errno
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kernel.cgroups import cgroup, devices, v1_resources, v2_resources
from wherry.kernel.cgroups.device_program import program
from wherry.kernel.cgroups.layout import Layout, parse


class Recorder:
    """The files of a cgroup: what is written is recorded; `missing` are not there, `refused` fail once with EINVAL."""

    def __init__(self, missing: set[str] | None = None, refused: set[str] | None = None, **content: str) -> None:
        self.missing, self.refused, self.content = missing or set(), refused or set(), content
        self.written: list[tuple[str, str, str]] = []
        self.program = b""

    def write(self, controller: str, name: str, value: str) -> None:
        if name in self.missing:
            raise FileNotFoundError(errno.ENOENT, "missing", name)
        if name in self.refused:
            self.refused.remove(name)
            raise OSError(errno.EINVAL, "refused", name)
        self.written.append((controller, name, value))

    def write_lines(self, controller: str, name: str, lines: Any) -> None:
        for line in lines:
            self.write(controller, name, line)

    def read(self, controller: str, name: str) -> str:
        return self.content.get(name.replace(".", "_"), "")

    def attach_devices(self, code: bytes) -> None:
        self.program = code


EVERYTHING = {
    "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
    "cpu": {"shares": 512, "quota": 20000, "period": 100000, "burst": 10, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 7},
    "blockIO": {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 1048576}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}],
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 100}},
}


def test_everything_on_v1() -> None:
    files = Recorder()
    v1_resources.apply(
        files, {**EVERYTHING, "network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 2}]}}
    )
    assert files.written == [
        ("memory", "memory.limit_in_bytes", "1000"),
        ("memory", "memory.memsw.limit_in_bytes", "3000"),
        ("memory", "memory.soft_limit_in_bytes", "500"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_burst_us", "0"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_burst_us", "10"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "7"),
        ("blkio", "blkio.weight", "500"),
        ("blkio", "blkio.weight_device", "8:0 1000"),
        ("blkio", "blkio.throttle.read_bps_device", "8:16 1048576"),
        ("blkio", "blkio.throttle.write_iops_device", "8:16 0"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "2097152"),
        ("hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "2097152"),
        ("net_cls", "net_cls.classid", "5"),
        ("net_prio", "net_prio.ifpriomap", "eth0 2"),
        ("rdma", "rdma.max", "mlx5_1 hca_handle=3 hca_object=100"),
    ]


def test_everything_on_v2() -> None:
    files = Recorder(missing={"io.bfq.weight"})
    v2_resources.apply(
        files, {**EVERYTHING, "unified": {"memory.high": "800", "io.latency": "8:0 target=1\n8:1 target=2"}}
    )
    assert files.written == [
        ("memory", "memory.swap.max", "2000"),
        ("memory", "memory.max", "1000"),
        ("memory", "memory.low", "500"),
        ("cpu", "cpu.weight", "59"),
        ("cpu", "cpu.max.burst", "0"),
        ("cpu", "cpu.max", "20000 100000"),
        ("cpu", "cpu.max.burst", "10"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "7"),
        ("io", "io.weight", "default 4950"),
        ("io", "io.weight", "8:0 10000"),
        ("io", "io.max", "8:16 rbps=1048576"),
        ("io", "io.max", "8:16 wiops=max"),
        ("hugetlb", "hugetlb.2MB.max", "2097152"),
        ("hugetlb", "hugetlb.2MB.rsvd.max", "2097152"),
        ("rdma", "rdma.max", "mlx5_1 hca_handle=3 hca_object=100"),
        ("memory", "memory.high", "800"),
        ("io", "io.latency", "8:0 target=1"),
        ("io", "io.latency", "8:1 target=2"),
    ]


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (1024, 100), (2048, 174), (262144, 10000), (9**9, 10000)]
)
def test_shares_become_a_weight(shares: int, weight: int) -> None:
    assert v2_resources.cpu_weight(shares) == weight


@given(st.integers(2, 262144))
def test_more_shares_never_weigh_less(shares: int) -> None:
    assert 1 <= v2_resources.cpu_weight(shares) <= v2_resources.cpu_weight(shares + 1) <= 10000


def test_v1_limits_are_set_in_the_order_the_kernel_takes() -> None:
    files = Recorder(refused={"memory.limit_in_bytes", "cpu.cfs_period_us"})
    v1_resources.apply(files, {"memory": {"limit": 50, "swap": 60}, "cpu": {"period": 1000, "quota": 500}})
    assert [name for _, name, _ in files.written] == [
        "memory.memsw.limit_in_bytes",
        "memory.limit_in_bytes",
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
    ]


def test_a_period_alone_keeps_the_quota_on_v2() -> None:
    files = Recorder(cpu_max="20000 100000\n")
    v2_resources.apply(files, {"cpu": {"period": 50000}})
    assert files.written == [("cpu", "cpu.max", "20000 50000")]


def test_a_limit_below_use_is_refused_when_asked_to_check() -> None:
    with pytest.raises(OSError, match="in use") as caught:
        v2_resources.apply(Recorder(memory_current="100"), {"memory": {"limit": 50, "checkBeforeUpdate": True}})
    assert caught.value.errno == errno.EBUSY


def test_absent_swap_accounting_fails_only_a_real_limit() -> None:
    for total in (-1, 1000):
        v2_resources.apply(Recorder(missing={"memory.swap.max"}), {"memory": {"limit": 1000, "swap": total}})
    with pytest.raises(FileNotFoundError):
        v2_resources.apply(Recorder(missing={"memory.swap.max"}), {"memory": {"limit": 1000, "swap": 1001}})


HYBRID = """\
23 27 0:22 / /sys rw - sysfs sysfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
90 31 0:39 / /other/memory rw - cgroup cgroup rw,memory
"""


def test_layouts_are_told_apart() -> None:
    hybrid = parse(HYBRID)
    shared, systemd = "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"
    controllers = {"cpu": shared, "cpuacct": shared, "memory": "/sys/fs/cgroup/memory", "name=systemd": systemd}
    assert hybrid == Layout(controllers, "/sys/fs/cgroup/unified")
    assert hybrid.version == 1
    # Only systemd's named hierarchy beside v2: nothing on v1 controls anything.
    named = "\n".join(line for line in HYBRID.splitlines() if "systemd" in line or "cgroup2" in line)
    assert parse(named) == Layout({}, "/sys/fs/cgroup/unified")
    assert parse(named).version == 2
    with pytest.raises(OSError, match="no cgroup"):
        parse("23 27 0:22 / /sys rw - sysfs sysfs rw\n")


def test_paths_stay_below_the_hierarchies() -> None:
    group = cgroup("/../../a/./b/../c", parse(HYBRID))
    assert group.paths["memory"] == "/sys/fs/cgroup/memory/a/c"
    assert group.paths[""] == "/sys/fs/cgroup/unified/a/c"


rule = st.fixed_dictionaries(
    {"allow": st.booleans(), "access": st.sampled_from(["r", "w", "m", "rw", "rwm", ""])},
    optional={
        "type": st.sampled_from(["a", "b", "c", "u"]),
        "major": st.sampled_from([1, 5, None, -1]),
        "minor": st.sampled_from([3, 7, None]),
    },
)
request = st.tuples(st.sampled_from("bc"), st.sampled_from([1, 5]), st.sampled_from([3, 7]), st.integers(1, 7))


def decide(rules: list[devices.Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """The definition: for each access the last rule that fits decides; what none fits is denied."""
    for bit in (1, 2, 4):
        if access & bit:
            asked = devices.Rule(True, kind, major, minor, bit)
            fitting = [rule for rule in rules if rule.covers(asked) and rule.access & bit]
            if not fitting or not fitting[-1].allow:
                return False
    return True


def interpret(code: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """The few eBPF instructions that device programs are made of. Backward jumps, which the kernel refuses, fail."""
    memory = struct.pack("<III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers, at = [0] * 11, 0
    for _ in range(len(code) // 8):
        opcode, both, offset, value = struct.unpack_from("<BBhi", code, at * 8)
        to, source = both & 15, both >> 4
        at += 1
        assert offset >= 0
        if opcode == 0x61:
            registers[to] = struct.unpack_from("<I", memory, offset)[0]
        elif opcode == 0xBC:
            registers[to] = registers[source]
        elif opcode == 0x54:
            registers[to] &= value
        elif opcode == 0x74:
            registers[to] >>= value
        elif opcode == 0xB7:
            registers[to] = value
        elif (
            (opcode == 0x55 and registers[to] != value) or (opcode == 0x45 and registers[to] & value) or opcode == 0x05
        ):
            at += offset
        elif opcode == 0x95:
            return registers[0] == 1
        else:
            assert opcode in (0x55, 0x45), hex(opcode)
    raise AssertionError("ran off the end")


@given(st.lists(rule, max_size=6), request)
def test_the_program_decides_as_the_rules_say(entries: list[dict[str, Any]], asked: tuple[str, int, int, int]) -> None:
    rules = devices.parse(entries)
    assert interpret(program(rules), *asked) == decide(rules, *asked)


@given(st.lists(rule, max_size=6), request)
def test_the_flat_list_decides_as_the_rules_say(
    entries: list[dict[str, Any]], asked: tuple[str, int, int, int]
) -> None:
    rules = devices.parse(entries)
    try:
        flat = devices.whitelist(rules)
    except OSError:
        return  # an exception to what is allowed, which v1 cannot express: refused, never widened
    assert decide([devices.Rule(True, "bc", -1, -1, 7)] if flat is None else flat, *asked) == decide(rules, *asked)


@pytest.mark.parametrize("entry", [{"type": "p"}, {"access": "x"}, {"major": "1"}, {"minor": 1 << 40}, {"access": 7}])
def test_what_is_no_device_rule_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="not a device rule"):
        devices.parse([entry])
