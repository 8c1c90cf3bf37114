"""bpf(2), as far as device programs on cgroups need it."""

from __future__ import annotations

import ctypes
import os

from wherry.kernel import syscalls

_NR_BPF = 280 if syscalls.ARCH in ("aarch64", "riscv64", "loongarch64") else 321
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI, _REPLACE = 2, 4
_MOST_PROGRAMS = 64  # the kernel's own limit per group and type


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
    ]


class _Attach(ctypes.Structure):
    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("replace_bpf_fd", ctypes.c_uint32),
    ]


class _Query(ctypes.Structure):
    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    ]


class _ById(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32)]


def attach_device_program(cgroup: str, program: bytes) -> None:
    """Make `program` the one that decides on devices in the v2 group at `cgroup`, in place of those attached before.

    It stays for as long as the group does. OSError with the group's path, and the verifier's log when that refuses.
    """
    group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [group]
    try:
        opened.append(loaded := _load(program, cgroup))
        opened.extend(_bpf(_PROG_GET_FD_BY_ID, _ById(id=number), cgroup) for number in _attached(group, cgroup))
        former = opened[2:]
        request = _Attach(target_fd=group, attach_bpf_fd=loaded, attach_type=_ATTACH_CGROUP_DEVICE, flags=_ALLOW_MULTI)
        if len(former) == 1:
            # No moment at which both decide, or none does.
            request.flags |= _REPLACE
            request.replace_bpf_fd = former.pop()
        _bpf(_PROG_ATTACH, request, cgroup)
        for fd in former:
            _bpf(_PROG_DETACH, _Attach(target_fd=group, attach_bpf_fd=fd, attach_type=_ATTACH_CGROUP_DEVICE), cgroup)
    finally:
        for fd in opened:
            os.close(fd)


def _load(program: bytes, cgroup: str) -> int:
    code, license = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"Apache")
    request = _Load(
        prog_type=_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(program) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(license),
        prog_name=b"wherry_devices",
    )
    try:
        return _bpf(_PROG_LOAD, request, cgroup)
    except OSError:
        # Only now with the verifier's log: it costs time, and fails the call when it does not fit.
        log = ctypes.create_string_buffer(16384)
        request.log_level, request.log_size, request.log_buf = 1, len(log), ctypes.addressof(log)
        try:
            return _bpf(_PROG_LOAD, request, cgroup)
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror} {log.value.decode(errors='replace')}".strip(), cgroup
            ) from None


def _attached(group: int, cgroup: str) -> list[int]:
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    request = _Query(
        target_fd=group, attach_type=_ATTACH_CGROUP_DEVICE, prog_ids=ctypes.addressof(ids), prog_cnt=_MOST_PROGRAMS
    )
    _bpf(_PROG_QUERY, request, cgroup)
    return list(ids[: request.prog_cnt])


def _bpf(command: int, request: ctypes.Structure, path: str) -> int:
    return syscalls.syscall(_NR_BPF, "bpf", path, command, ctypes.byref(request), ctypes.sizeof(request))
