"""OCI `linux.seccomp` compiled to a BPF program by libseccomp, and installed with seccomp(2).

    bpf = seccomp.compile(profile, cache="/run/wherry/seccomp")
    ...                                       # in the container's process, last of all
    seccomp.install(bpf, seccomp.flags(profile))

Compiling the default profile takes 40 ms or more; it is done once and kept, in memory and in `cache`. A quarter of that
goes into `filter_code`, which answers the same with a sixth of the instructions: the kernel translates every one of
them, twice, each time a program is installed.

Two things libseccomp leaves to its callers are put in front of its program. A system call that is newer than all the
profile names is answered with ENOSYS, so that programs take their fallback instead of taking EPERM for an answer. And
names in the profile that this libseccomp does not know yet are matched by number: since Linux 5.4 new calls have the
same one on every architecture.
"""

from __future__ import annotations

import ctypes
import errno
import os

from wherry.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.kernel.libseccomp import Library, Rule

ALLOW, KILL_THREAD, TRAP, ERRNO, TRACE, LOG = 0x7FFF0000, 0, 0x00030000, 0x00050000, 0x7FF00000, 0x7FFC0000
_ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
_FORMAT = b"2"  # of what is cached: changes whenever the same profile compiles to something else

ARCHITECTURES = ("X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64", "S390X", "S390", "PPC64LE", "PPC64", "PPC")
"""What libseccomp 2.5 can filter for, without MIPS and PA-RISC."""

_compiled: dict[bytes, bytes] = {}
_KEPT, _KEPT_ON_DISK = 64, 512
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def compile(profile: Mapping[str, Any], cache: str | None = None) -> bytes:
    """The program (struct sock_filter, 8 bytes each) for an OCI `linux.seccomp` object.

    `cache`: a directory, made when absent, for programs across processes. OSError: EINVAL for a profile that is wrong,
    EOPNOTSUPP for what cannot be done (SCMP_ACT_NOTIFY), ENOENT without libseccomp.
    """
    key = key_of(profile)
    program = _compiled.get(key)
    if program is None:
        program = _from_cache(profile, key, cache) if cache else build(profile)
        _keep(key, program)
    return program


def key_of(profile: Mapping[str, Any]) -> bytes:
    """What tells profiles apart."""
    import marshal

    # Version 2 has no object references: equal profiles give equal bytes.
    return marshal.dumps(dict(profile), 2)


def is_known(key: bytes, cache: str) -> bool:
    """Whether `compile` has nothing to compile for the profile of this key."""
    if key in _compiled:
        return True
    directory = _open_cache(cache)
    try:
        program = _read(directory, _name(key))
    finally:
        os.close(directory)
    if program is not None:
        _keep(key, program)
    return program is not None


def remember(key: bytes, cache: str, program: bytes) -> None:
    """Take what `build` made of the key's profile elsewhere for what `compile` gives from now on."""
    directory = _open_cache(cache)
    try:
        _write(directory, _name(key), program)
    finally:
        os.close(directory)
    _keep(key, program)


def _keep(key: bytes, program: bytes) -> None:
    while len(_compiled) >= _KEPT:
        del _compiled[next(iter(_compiled))]
    _compiled[key] = program


def flags(profile: Mapping[str, Any]) -> int:
    """The flags for `install`. Without a list in the profile speculative execution is left as it is, as others do."""
    names = profile.get("flags")
    if names is None:
        return _FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    wanted = 0
    for name in names:
        if name not in _FLAGS:
            raise OSError(errno.EINVAL, f"linux.seccomp: unknown flag {name!r}")
        wanted |= _FLAGS[name]
    return wanted


def install(program: bytes, flags: int = 0) -> None:
    """Put the calling thread under `program`, for good. Needs no_new_privs or CAP_SYS_ADMIN (seccomp(2))."""
    # In place: a buffer would be a new type to ctypes, which costs as much as the rest in a process just forked.
    request = _Program(len(program) // 8, program)
    syscalls.syscall(syscalls.NR_SECCOMP, "seccomp", None, 1, flags, ctypes.byref(request))


def actions() -> tuple[str, ...]:
    """Names of the actions that can be used."""
    return tuple(_ACTIONS)


def operators() -> tuple[str, ...]:
    """Names of the comparisons that can be used."""
    return tuple(_OPERATORS)


def flag_names() -> tuple[str, ...]:
    """Names of the flags that can be used."""
    return tuple(_FLAGS)


def build(profile: Mapping[str, Any]) -> bytes:
    """Compile, whatever is known already. May take for ever: see runtime/filters.py."""
    from wherry.kernel import filter_code, libseccomp

    library = libseccomp.load()
    if profile.get("listenerPath"):
        raise OSError(errno.EOPNOTSUPP, "linux.seccomp: listenerPath (SCMP_ACT_NOTIFY) is not supported")
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"))
    rules = _rules(profile, default)
    architectures = [_architecture(library, name) for name in profile.get("architectures") or ()]
    architectures = list(dict.fromkeys([library.native(), *architectures]))
    program = _prologue(library, architectures, rules, default) + library.compile(default, architectures, rules)
    program = filter_code.shorten(program)
    if len(program) > 8 * _MAX_INSTRUCTIONS:
        raise OSError(
            errno.EINVAL,
            f"linux.seccomp: the profile makes {len(program) // 8} instructions, the kernel takes {_MAX_INSTRUCTIONS}",
        )
    return program


def _rules(profile: Mapping[str, Any], default: int) -> list[Rule]:
    from wherry.kernel.libseccomp import Rule

    rules: list[Rule] = []
    for entry in profile.get("syscalls") or ():
        action = _action(entry.get("action"), entry.get("errnoRet"))
        if action == default:
            continue  # says nothing, and libseccomp refuses it
        conditions = [_condition(argument) for argument in entry.get("args") or ()]
        # Two conditions on one argument are alternatives, which is a rule each; on different ones all must hold.
        alternatives = len({condition[0] for condition in conditions}) < len(conditions)
        sets = [(condition,) for condition in conditions] if alternatives else [tuple(conditions)]
        for name in entry.get("names") or ():
            rules += [Rule(str(name), action, chosen) for chosen in sets]
    return rules


def _action(name: object, errno_ret: object) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise OSError(errno.EOPNOTSUPP, "linux.seccomp: SCMP_ACT_NOTIFY is not supported")
    action = _ACTIONS.get(str(name))
    if action is None:
        raise OSError(errno.EINVAL, f"linux.seccomp: unknown action {name!r}")
    if action not in (ERRNO, TRACE):
        return action
    value = errno.EPERM if errno_ret is None else errno_ret
    if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
        raise OSError(errno.EINVAL, f"linux.seccomp: errnoRet {errno_ret!r} is not a number up to 65535")
    return action | value


def _condition(argument: Mapping[str, Any]) -> tuple[int, int, int, int]:
    operator = _OPERATORS.get(str(argument.get("op")))
    numbers = [argument.get("index"), argument.get("value") or 0, argument.get("valueTwo") or 0]
    if operator is None or any(not isinstance(n, int) or not 0 <= n < 1 << 64 for n in numbers) or numbers[0] > 5:  # type: ignore[operator]
        raise OSError(errno.EINVAL, f"linux.seccomp: not a condition on an argument: {dict(argument)!r}")
    return numbers[0], operator, numbers[1], numbers[2]  # type: ignore[return-value]


def _architecture(library: Library, name: object) -> int:
    token = library.architecture(str(name).removeprefix("SCMP_ARCH_").lower())
    if token == 0:
        raise OSError(errno.EINVAL, f"linux.seccomp: unknown architecture {name!r}")
    return token


# Calls by the number they have everywhere; older than these, every libseccomp in use knows.
_NEW_CALLS = {
    name: 449 + index
    for index, name in enumerate(
        ("futex_waitv", "set_mempolicy_home_node", "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake")
        + ("futex_wait", "futex_requeue", "statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr")
        + ("lsm_list_modules", "mseal", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "open_tree_attr")
        + ("file_getattr", "file_setattr")
    )
}
_X32_BIT = 0x40000000
_LOAD, _JUMP, _EQUAL, _GREATER, _AT_LEAST, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06


def _prologue(library: Library, architectures: Sequence[int], rules: Sequence[Rule], default: int) -> bytes:
    """Instructions that answer for calls libseccomp's part cannot know, or fall through to it."""
    if default in (ALLOW, LOG) or default & 0xFFFF0000 == TRACE:
        return b""
    blocks = [found for token in architectures if (found := _prologue_of(library, token, rules, default))]
    program = _instruction(_LOAD, value=4)  # seccomp_data.arch
    rest = sum([len(block) // 8 for _, block in blocks]) + 2 * len(blocks)
    if not blocks:
        return b""
    for audit, block in blocks:
        rest -= len(block) // 8 + 2
        program += _instruction(_EQUAL, 0, len(block) // 8 + 1, audit) + block + _instruction(_JUMP, value=rest)
    return program


def _prologue_of(library: Library, token: int, rules: Sequence[Rule], default: int) -> tuple[int, bytes] | None:
    """(audit architecture, instructions). None for x32, which shares its audit architecture with x86_64."""
    audit = library.audit_architecture(token)
    if audit is None:
        return None
    known, added = [0], dict[int, int]()
    for rule in rules:
        number = library.resolve(token, rule.name)
        if number is None and rule.name in _NEW_CALLS and not rule.conditions:
            number = _NEW_CALLS[rule.name]
            added.setdefault(number, rule.action)
        known.append(number or 0)
    block = _instruction(_LOAD, value=0)  # seccomp_data.nr
    answers = b""
    for number, action in added.items():
        answers += _instruction(_EQUAL, 0, 1, number) + _instruction(_RETURN, value=action)
    if default != ERRNO | errno.ENOSYS:
        answers += _instruction(_GREATER, 0, 1, max(known)) + _instruction(_RETURN, value=ERRNO | errno.ENOSYS)
    # x32's numbers, and -1, by which a tracer skips a call, are no new calls.
    return audit, block + _instruction(_AT_LEAST, len(answers) // 8, 0, _X32_BIT) + answers


def _instruction(code: int, if_true: int = 0, if_false: int = 0, value: int = 0) -> bytes:
    return code.to_bytes(2, _ORDER) + bytes((if_true, if_false)) + value.to_bytes(4, _ORDER)


_ORDER: Any = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"


def _name(key: bytes) -> str:
    from wherry.kernel import libseccomp

    try:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]  # hashlib costs a millisecond
    except ImportError:
        from hashlib import sha256

    name: str = sha256(b"%s\0%s\0%s" % (_FORMAT, libseccomp.load().version().encode(), key)).hexdigest()
    return name


def _from_cache(profile: Mapping[str, Any], key: bytes, cache: str) -> bytes:
    name = _name(key)
    directory = _open_cache(cache)
    try:
        program = _read(directory, name)
        if program is None:
            program = build(profile)
            _write(directory, name, program)
        return program
    finally:
        os.close(directory)


def _open_cache(path: str) -> int:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    # Whoever can write here decides what containers may do.
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(fd)
        raise OSError(errno.EPERM, "seccomp cache: must be ours, and writable to nobody else", path)
    return fd


def _read(directory: int, name: str) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        program = os.read(fd, 1 << 17)
    finally:
        os.close(fd)
    return program if program and len(program) % 8 == 0 else None


def _write(directory: int, name: str, program: bytes) -> None:
    names = os.listdir(directory)
    for other in names if len(names) >= _KEPT_ON_DISK else ():
        os.unlink(other, dir_fd=directory)
    temporary = f".{name}.{os.getpid()}"
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
    )
    try:
        os.write(fd, program)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
