"""Compiled profiles, under the kernel that enforces them."""

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wherry.kernel import libseccomp, processes, seccomp
from wherry.spec.seccomp import default_oci_profile, docker_profile_to_oci

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system call numbers below are x86_64's")

MKDIR, SOCKET, UNSHARE, CLONE3, FCHMODAT2, MSEAL, NEVER, PERSONALITY = 83, 41, 272, 435, 452, 462, 2000, 135


def under(profile: dict[str, Any], work: Callable[[], int]) -> int:
    """Exit code (or minus the signal) of a process that does `work` under the profile."""
    code = seccomp.compile(profile)
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
            seccomp.install(code, seccomp.flags(profile))
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def call(number: int, *arguments: int) -> int:
    """errno of a system call, 0 when it succeeds."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return ctypes.get_errno() if result == -1 else 0


def profile(*syscalls: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(syscalls), **more}


def entry(name: str, action: str, *args: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": action, "args": list(args), **more}


def test_docker_default() -> None:
    plain = dict(default_oci_profile(frozenset(), os.uname().release, "x86_64"))
    assert under(plain, lambda: call(UNSHARE, 0)) == errno.EPERM
    assert under(plain, lambda: call(CLONE3, 0, 0)) == errno.ENOSYS
    assert under(plain, lambda: call(SOCKET, 40, 1, 0)) == errno.EPERM  # AF_VSOCK
    assert under(plain, lambda: call(SOCKET, 1, 1, 0)) == 0
    assert under(plain, lambda: call(PERSONALITY, 0xFFFFFFFF)) == 0
    assert under(plain, lambda: call(PERSONALITY, 0x0400000)) == errno.EPERM
    privileged = dict(default_oci_profile(frozenset({"CAP_SYS_ADMIN"}), os.uname().release, "x86_64"))
    assert under(privileged, lambda: call(UNSHARE, 0)) == 0


def test_calls_newer_than_the_profile_do_not_exist() -> None:
    plain = dict(default_oci_profile(frozenset(), os.uname().release, "x86_64"))
    assert under(plain, lambda: call(NEVER)) == errno.ENOSYS
    assert under(plain, lambda: call(NEVER | 0x40000000)) == errno.EPERM  # x32: the filter's own answer
    killing = profile(entry("exit_group", "SCMP_ACT_ALLOW"), default="SCMP_ACT_KILL_PROCESS")
    assert under(killing, lambda: call(NEVER)) == errno.ENOSYS
    assert under(killing, lambda: call(MKDIR, 0)) == -31


def test_calls_unknown_to_the_library_are_matched_by_number() -> None:
    assert libseccomp.load().resolve(libseccomp.load().native(), "mkdir") == MKDIR
    plain = dict(default_oci_profile(frozenset(), os.uname().release, "x86_64"))
    # The kernel's own answers to bad arguments, which show that the filter let the calls through.
    assert under(plain, lambda: call(FCHMODAT2, -1, 0, 0, 0)) in (errno.EFAULT, errno.ENOSYS)
    assert under(plain, lambda: call(MSEAL, 1, 1, 0)) in (errno.EINVAL, errno.ENOSYS)
    refusing = profile(entry("mseal", "SCMP_ACT_ERRNO", errnoRet=77), entry("mkdir", "SCMP_ACT_ALLOW"))
    assert under(refusing, lambda: call(MSEAL, 1, 1, 0)) in (77, errno.EINVAL, errno.ENOSYS)


@pytest.mark.parametrize(
    ("condition", "refused", "let_through"),
    [
        ({"op": "SCMP_CMP_EQ", "value": 5}, [5], [4, 6, 5 | 1 << 32]),
        ({"op": "SCMP_CMP_NE", "value": 5}, [4, 6, 5 | 1 << 32], [5]),
        ({"op": "SCMP_CMP_LT", "value": 5}, [0, 4], [5, 1 << 40]),
        ({"op": "SCMP_CMP_LE", "value": 5}, [0, 5], [6]),
        ({"op": "SCMP_CMP_GE", "value": 5}, [5, 1 << 40], [4]),
        ({"op": "SCMP_CMP_GT", "value": 5}, [6], [5]),
        ({"op": "SCMP_CMP_MASKED_EQ", "value": 0xF0, "valueTwo": 0x30}, [0x30, 0x35, 0x130], [0x20, 0x70]),
    ],
)
def test_conditions(condition: dict[str, Any], refused: list[int], let_through: list[int]) -> None:
    made = profile(entry("mkdir", "SCMP_ACT_ERRNO", {"index": 1, **condition}, errnoRet=99))
    for value, expected in [*((v, 99) for v in refused), *((v, errno.EFAULT) for v in let_through)]:
        assert under(made, lambda value=value: call(MKDIR, 0, value)) == expected, value  # type: ignore[misc]


def test_conditions_on_one_argument_are_alternatives_and_on_several_all_hold() -> None:
    def equals(index: int, value: int) -> dict[str, Any]:
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}

    either = profile(entry("mkdir", "SCMP_ACT_ERRNO", equals(1, 5), equals(1, 6), errnoRet=99))
    both = profile(entry("mkdir", "SCMP_ACT_ERRNO", equals(1, 5), equals(2, 7), errnoRet=99))
    assert [under(either, lambda v=v: call(MKDIR, 0, v)) for v in (5, 6, 7)] == [99, 99, errno.EFAULT]  # type: ignore[misc]
    assert under(both, lambda: call(MKDIR, 0, 5, 7)) == 99
    assert under(both, lambda: call(MKDIR, 0, 5, 8)) == errno.EFAULT


@pytest.mark.parametrize(
    ("action", "status"),
    [("SCMP_ACT_KILL_PROCESS", -31), ("SCMP_ACT_KILL", -31), ("SCMP_ACT_TRAP", -31), ("SCMP_ACT_LOG", 14)],
)
def test_actions(action: str, status: int) -> None:
    assert under(profile(entry("mkdir", action)), lambda: call(MKDIR, 0)) == status


def test_unknown_names_are_left_out() -> None:
    assert under(profile(entry("no_such_call", "SCMP_ACT_KILL")), lambda: 3) == 3


@pytest.mark.parametrize(
    ("wrong", "number", "word"),
    [
        ({"defaultAction": "ALLOW"}, errno.EINVAL, "ALLOW"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, errno.EOPNOTSUPP, "NOTIFY"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}, errno.EOPNOTSUPP, "listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}, errno.EINVAL, "PDP11"),
        (profile(entry("mkdir", "SCMP_ACT_ERRNO", errnoRet=-1)), errno.EINVAL, "errnoRet"),
        (profile(entry("mkdir", "SCMP_ACT_ERRNO", {"index": 6, "op": "SCMP_CMP_EQ"})), errno.EINVAL, "condition"),
        (profile(entry("mkdir", "SCMP_ACT_ERRNO", {"index": 0, "op": "=="})), errno.EINVAL, "=="),
    ],
)
def test_wrong_profiles_name_what_is_wrong(wrong: dict[str, Any], number: int, word: str) -> None:
    with pytest.raises(OSError, match=word) as caught:
        seccomp.compile(wrong)
    assert caught.value.errno == number


def test_flags() -> None:
    assert seccomp.flags({}) == 4
    assert seccomp.flags({"flags": []}) == 0
    assert seccomp.flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}) == 3
    with pytest.raises(OSError, match="BOGUS"):
        seccomp.flags({"flags": ["BOGUS"]})


def test_programs_are_kept_on_disk_for_us_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = docker_profile_to_oci({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}, (), "6.1", "x86_64")
    made["defaultErrnoRet"] = 1234  # nobody else's
    cache = tmp_path / "cache"
    code = seccomp.compile(made, str(cache))
    (kept,) = cache.iterdir()
    assert kept.read_bytes() == code
    assert cache.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(seccomp, "_compiled", {})
    monkeypatch.setattr(seccomp, "build", lambda _: pytest.fail("compiled again"))
    assert seccomp.compile(made, str(cache)) == code
    monkeypatch.setattr(seccomp, "_compiled", {})
    cache.chmod(0o777)
    with pytest.raises(PermissionError, match="seccomp cache"):
        seccomp.compile(made, str(cache))
