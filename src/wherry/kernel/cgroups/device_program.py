"""Device rules compiled to eBPF for cgroup v2 (linux/bpf.h, struct bpf_cgroup_dev_ctx)."""

from __future__ import annotations

import struct

from wherry.kernel.cgroups.devices import ALL, ANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.kernel.cgroups.devices import Rule

# Registers: r2 device type, r3 accesses still undecided, r4 major, r5 minor.
_KIND_NUMBER = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_LOAD32, _MOV, _AND, _RSH, _JNE, _JSET, _JA, _EXIT, _MOV_IMM = 0x61, 0xBC, 0x54, 0x74, 0x55, 0x45, 0x05, 0x95, 0xB7


def _op(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, to | source << 4, offset, value)


def _answer(value: int) -> list[bytes]:
    return [_op(_MOV_IMM, 0, value=value), _op(_EXIT)]


def program(rules: Sequence[Rule]) -> bytes:
    """A BPF_PROG_TYPE_CGROUP_DEVICE program that decides as the rules do: last rule first, access by access."""
    code = [
        _op(_LOAD32, 3, 1, 0),  # access << 16 | type
        _op(_MOV, 2, 3),
        _op(_AND, 2, value=0xFFFF),
        _op(_RSH, 3, value=16),
        _op(_LOAD32, 4, 1, 4),
        _op(_LOAD32, 5, 1, 8),
    ]
    for rule in reversed(rules):
        if rule.total:
            # Older verifiers refuse code that cannot be reached.
            return b"".join(code + _answer(int(rule.allow)))
        code += _block(rule)
    return b"".join(code + _answer(0))


def _block(rule: Rule) -> list[bytes]:
    if rule.allow:
        body = [_op(_AND, 3, value=~rule.access & ALL), _op(_JNE, 3, offset=2), *_answer(1)]
    else:
        body = [_op(_JSET, 3, offset=1, value=rule.access), _op(_JA, offset=2), *_answer(0)]
    conditions = []
    if len(rule.kinds) == 1:
        conditions.append((2, _KIND_NUMBER[rule.kinds]))
    if rule.major != ANY:
        conditions.append((4, rule.major))
    if rule.minor != ANY:
        conditions.append((5, rule.minor))
    # Jumps count from the next instruction, past the conditions that remain and the body.
    tests = [
        _op(_JNE, register, offset=len(conditions) - index - 1 + len(body), value=value)
        for index, (register, value) in enumerate(conditions)
    ]
    return tests + body
