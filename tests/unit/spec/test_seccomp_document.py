"""Docker's seccomp profiles made into OCI's for one container."""

import pytest

from wherry.errors import InvalidArgument
from wherry.spec.seccomp import default_oci_profile, default_profile, docker_profile_to_oci


def allowed(profile, name):
    return [entry for entry in profile["syscalls"] if name in entry["names"] and entry["action"] == "SCMP_ACT_ALLOW"]


@pytest.mark.parametrize(
    ("capabilities", "may_mount", "clone3_entries"),
    [((), False, ["SCMP_ACT_ERRNO"]), (("CAP_SYS_ADMIN",), True, ["SCMP_ACT_ALLOW"])],
)
def test_capabilities_open_calls(capabilities, may_mount, clone3_entries):
    profile = default_oci_profile(frozenset(capabilities), "6.18.5", "x86_64")
    assert bool(allowed(profile, "mount")) is may_mount
    assert [entry["action"] for entry in profile["syscalls"] if "clone3" in entry["names"]] == clone3_entries
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert profile["defaultErrnoRet"] == 1


@pytest.mark.parametrize(("kernel", "ptrace"), [("4.7.99", False), ("4.8", True), ("4.10-rc1", True), ("6.1.0", True)])
def test_kernel_version_opens_ptrace(kernel, ptrace):
    assert bool(allowed(docker_profile_to_oci(default_profile(), (), kernel, "x86_64"), "ptrace")) is ptrace


def test_architecture_selects():
    arm = docker_profile_to_oci(default_profile(), (), "6.1", "aarch64")
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert allowed(arm, "arm_fadvise64_64")
    assert not allowed(arm, "arch_prctl")
    assert docker_profile_to_oci(default_profile(), (), "6.1", "riscv64")["architectures"] == ["SCMP_ARCH_RISCV64"]


def test_conditions_do_not_reach_the_runtime():
    profile = docker_profile_to_oci(default_profile(), ("CAP_BPF",), "6.1", "x86_64")
    assert {key for entry in profile["syscalls"] for key in entry} == {"names", "action", "args", "errnoRet"}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({}, "defaultAction"),
        ([], "defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "syscalls must be a list"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]}, r"syscalls\[0\] must be an object"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [1], "action": "x"}]}, r"syscalls\[0\] needs"),
        ({"defaultAction": "x", "architectures": ["a"], "archMap": [{}]}, "exclude each other"),
        ({"defaultAction": "x", "syscalls": [{"name": "a", "names": ["b"], "action": "x"}]}, "both"),
        ({"defaultAction": "x", "syscalls": [{"includes": {"minKernel": "new"}}]}, "kernel version"),
    ],
)
def test_wrong_profiles_are_refused_by_name(profile, message):
    with pytest.raises(InvalidArgument, match=message):
        docker_profile_to_oci(profile, (), "6.1", "x86_64")
