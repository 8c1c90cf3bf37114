"""libseccomp 2.5 through ctypes: names to numbers, rules to BPF."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

_OPTIMIZE, _TREE = 8, 2  # SCMP_FLTATR_CTL_OPTIMIZE: 1 is by priority, 2 a binary tree
_X32 = 0x4000003E


class Rule(NamedTuple):
    """One rule; `conditions`: (argument index, operator, value, second value), all of which must hold."""

    name: str
    action: int
    conditions: tuple[tuple[int, int, int, int], ...]


class _Condition(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


class _Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


class Library:
    """The loaded library. Calls return negative errno values, which become OSErrors here."""

    def __init__(self, path: str) -> None:
        try:
            self._c = ctypes.CDLL(path)
        except OSError as error:
            raise OSError(errno.ENOENT, f"seccomp needs libseccomp 2.5 or newer: {error}", path) from None
        for name, result, arguments in (
            ("version", ctypes.POINTER(_Version), ()),
            ("arch_native", ctypes.c_uint32, ()),
            ("arch_resolve_name", ctypes.c_uint32, (ctypes.c_char_p,)),
            ("syscall_resolve_name_arch", ctypes.c_int, (ctypes.c_uint32, ctypes.c_char_p)),
            ("syscall_resolve_name", ctypes.c_int, (ctypes.c_char_p,)),
            ("init", ctypes.c_void_p, (ctypes.c_uint32,)),
            ("release", None, (ctypes.c_void_p,)),
            ("attr_set", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)),
            ("arch_add", ctypes.c_int, (ctypes.c_void_p, ctypes.c_uint32)),
            (
                "rule_add_array",
                ctypes.c_int,
                (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p),
            ),
            ("export_bpf", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int)),
        ):
            function = getattr(self._c, "seccomp_" + name)
            function.restype, function.argtypes = result, arguments

    def version(self) -> str:
        """Such as 2.5.4."""
        found = self._c.seccomp_version().contents
        return f"{found.major}.{found.minor}.{found.micro}"

    def native(self) -> int:
        """The token of this machine's architecture."""
        return int(self._c.seccomp_arch_native())

    def architecture(self, name: str) -> int:
        """The token for a name such as x86_64; 0 when unknown."""
        return int(self._c.seccomp_arch_resolve_name(name.encode()))

    def audit_architecture(self, token: int) -> int | None:
        """What seccomp_data.arch holds for it; None when another architecture's calls look the same."""
        return None if token == _X32 else token

    def resolve(self, token: int, name: str) -> int | None:
        """A system call's number, None when there is none on that architecture or the name is unknown."""
        number = int(self._c.seccomp_syscall_resolve_name_arch(token, name.encode()))
        return number if number >= 0 else None

    def compile(self, default: int, architectures: Sequence[int], rules: Sequence[Rule]) -> bytes:
        """The BPF program. Names this library does not know are left out."""
        context = self._c.seccomp_init(default)
        if not context:
            raise OSError(errno.EINVAL, f"seccomp_init: not an action: {default:#x}")
        try:
            # The kernel runs the program for each of some 500 calls when it is installed: a tree makes that quick.
            self._c.seccomp_attr_set(context, _OPTIMIZE, _TREE)
            for token in architectures:
                _check(self._c.seccomp_arch_add(context, token), "seccomp_arch_add", hex(token), ignore=errno.EEXIST)
            for rule in rules:
                self._add(context, rule)
            return self._export(context)
        finally:
            self._c.seccomp_release(context)

    def _add(self, context: int, rule: Rule) -> None:
        number = self._c.seccomp_syscall_resolve_name(rule.name.encode())
        if number == -1:
            return
        conditions = (_Condition * len(rule.conditions))(*[_Condition(*condition) for condition in rule.conditions])
        result = self._c.seccomp_rule_add_array(context, rule.action, number, len(conditions), conditions)
        _check(result, "seccomp_rule_add", rule.name)

    def _export(self, context: int) -> bytes:
        fd = os.memfd_create("seccomp")
        try:
            _check(self._c.seccomp_export_bpf(context, fd), "seccomp_export_bpf", "memfd")
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)


def _check(result: int, call: str, subject: str, ignore: int = 0) -> None:
    if result < 0 and -result != ignore:
        raise OSError(-result, f"{call}: {os.strerror(-result)}", subject)


_loaded: Library | None = None


def load() -> Library:
    """The library, opened once per process. OSError(ENOENT): not installed."""
    global _loaded
    if _loaded is None:
        _loaded = Library("libseccomp.so.2")
    return _loaded
