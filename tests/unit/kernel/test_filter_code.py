"""Short seccomp programs answer as the long ones they are made from: both are run and compared."""

import os
import random
import signal
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kernel import filter_code, filter_graph, libseccomp, seccomp
from wherry.spec.seccomp import default_oci_profile

try:
    libseccomp.load()
except OSError as error:
    pytest.skip(str(error), allow_module_level=True)

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ARCHITECTURES = (X86_64, I386, AARCH64, ARM, 0, 0xFFFFFFFF)
ALLOW, DENY = 0x7FFF0000, 0x00050001
X32, TOP = 0x40000000, 0xFFFFFFFF

Code = list[tuple[int, int, int, int]]


def decode(program: bytes) -> Code:
    return list(struct.iter_unpack("=HBBI", program))


def run(code: Code, data: Sequence[int]) -> tuple[int, list[int]]:
    """(answer, arguments' words read) of a program; `data`: struct seccomp_data as 16 words. After socket(7)'s BPF."""
    position = accumulator = 0
    read = []
    while True:
        operation, true, false, value = code[position]
        position += 1
        if operation == 0x20:
            accumulator = data[value // 4]
            if value >= 16:
                read.append(value // 4)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            position += value
        elif operation == 0x15:
            position += true if accumulator == value else false
        elif operation == 0x25:
            position += true if accumulator > value else false
        elif operation == 0x35:
            position += true if accumulator >= value else false
        else:
            assert operation == 0x06, f"{operation:#x} at {position - 1}"
            return value, read


def long_program(profile: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What libseccomp makes of it, with what we put in front."""
    with monkeypatch.context() as patch:
        patch.setattr(filter_code, "shorten", lambda program: program)
        return seccomp.build(profile)


def long_program_in_time(profile: dict[str, Any]) -> bytes | None:
    """The same from a child with a second to do it. None: refused, or libseccomp 2.5 never ends."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(1)
            with pytest.MonkeyPatch.context() as patch, open(theirs, "wb") as out:
                out.write(long_program(profile, patch))
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as out:
        program = out.read()
    os.waitpid(pid, 0)
    return program or None


def numbers(code: Code) -> list[int]:
    """Every call there is, and what is next to every constant."""
    found = set(range(620)) | {X32 | n for n in range(620)} | {TOP, TOP - 1, 1 << 31, (1 << 31) - 1}
    for _, _, _, value in code:
        found |= {value - 1 & TOP, value, value + 1 & TOP}
    return sorted(found)


def boundaries(code: Code) -> list[int]:
    """Words at which a comparison of an argument, or a masked one, can change."""
    found, masks, argument = {0, 1, TOP}, {TOP}, False
    for operation, _, _, value in code:
        if operation == 0x20:
            argument = value >= 16
        if operation == 0x54:
            masks.add(value)
        if argument and operation in (0x15, 0x25, 0x35, 0x54):
            found |= {value - 1 & TOP, value, value + 1 & TOP, value ^ TOP}
    return sorted(found | {value & mask for value in found for mask in masks})


def words(code: Code, read: Iterable[int], tries: int, chance: random.Random) -> Iterator[list[int]]:
    """Arguments, 12 words: each word that is read takes every value it matters for, the others being of all sorts."""
    values = boundaries(code)
    few = [0, 0, 0, 1, TOP]
    for word in read:
        for value in values if len(values) < 5 * tries else chance.sample(values, 5 * tries):
            chosen = [0] * 12
            chosen[word - 4] = value
            yield chosen
    for _ in range(tries):
        yield [chance.choice(values if chance.random() < 0.6 else few) for _ in range(12)]


def compare(long: bytes, short: bytes, tries: int) -> int:
    """The number of runs that were equal. A program that reads no argument for a call needs only one run for it."""
    before, after = decode(long), decode(short)
    argument_reads = sorted({value // 4 for operation, _, _, value in before if operation == 0x20 and value >= 16})
    constants, chance, runs = before + after, random.Random(1), 0
    for architecture in ARCHITECTURES:
        for number in numbers(constants):
            first = [number, architecture, 0, 0, *[0] * 12]
            (expected, read), (got, also) = run(before, first), run(after, first)
            assert got == expected, f"call {number:#x} of {architecture:#x}"
            runs += 1
            if not read and not also:
                continue
            for chosen in words(constants, argument_reads, tries, chance):
                data = [number, architecture, 0, 0, *chosen]
                expected, got = run(before, data)[0], run(after, data)[0]
                assert got == expected, f"call {number:#x} of {architecture:#x} with {chosen}"
                runs += 1
    return runs


CAPABILITIES = (
    frozenset[str](),
    frozenset({"CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_BPF", "CAP_NET_ADMIN"}),
)


@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=("plain", "privileged"))
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_docker_default(capabilities: frozenset[str], machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = dict(default_oci_profile(capabilities, "6.18.5", machine))
    long = long_program(profile, monkeypatch)
    short = filter_code.shorten(long)
    assert len(short) * 4 < len(long)
    assert compare(long, short, 250) > 10_000
    assert filter_code.shorten(short) == short  # as short as it gets


NAMES = ("read", "socket", "personality", "clone", "ioctl", "prctl", "openat", "mmap", "kexec_load", "nonsense")
ACTIONS = ("ALLOW", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "LOG")
VALUES = st.sampled_from((0, 1, 2, 40, 0x7FFFFFFF, 0x80000000, TOP, TOP + 1, TOP + 2, 1 << 63, (1 << 64) - 1))
CONDITION = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "op": st.sampled_from([f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")]),
        "value": VALUES,
        "valueTwo": VALUES,
    }
)
ENTRY = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
        "action": st.sampled_from([f"SCMP_ACT_{name}" for name in ACTIONS]),
        "errnoRet": st.sampled_from((None, 0, 1, 38)),
        "args": st.lists(CONDITION, max_size=3),
    }
)
PROFILE = st.fixed_dictionaries(
    {
        "defaultAction": st.sampled_from([f"SCMP_ACT_{name}" for name in ACTIONS]),
        "architectures": st.lists(
            st.sampled_from([f"SCMP_ARCH_{name}" for name in ("X86_64", "X86", "X32")]), unique=True
        ),
        "syscalls": st.lists(ENTRY, max_size=6),
    }
)


@settings(
    max_examples=int(os.environ.get("WHERRY_FILTER_EXAMPLES", "15")),
    deadline=None,
    derandomize="WHERRY_FILTER_EXAMPLES" not in os.environ,
)
@given(PROFILE)
def test_any_profile(profile: dict[str, Any]) -> None:
    long = long_program_in_time(profile)
    if long is None:
        return  # two entries contradict each other, or a masked value never matches
    filter_graph.read(long)  # nothing libseccomp makes is beyond us
    compare(long, filter_code.shorten(long), 12)


def load(offset: int) -> tuple[int, int, int, int]:
    return 0x20, 0, 0, offset


def program(*code: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def test_far_jumps() -> None:
    """Answers and decisions more than 255 instructions away, on both sides of a condition."""
    code = [load(0)]
    for number in range(0, 1200, 3):
        code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | number % 700)]
    for number in range(1201, 1300, 3):  # the same decision on an argument, far apart
        code += [(0x15, 0, 4, number), load(16), (0x15, 0, 1, 7), (0x06, 0, 0, ALLOW), (0x06, 0, 0, 0)]
    long = program(*code, (0x06, 0, 0, DENY))
    graph, root = filter_graph.read(long)
    short = filter_code.assemble(graph, root)
    assert (0x05, 0, 0) in {one[:3] for one in decode(short)}
    before, after = decode(long), decode(short)
    for number in [*range(1400), TOP]:
        for value in (6, 7, 8):
            data = [number, X86_64, 0, 0, value, *[0] * 11]
            assert run(before, data)[0] == run(after, data)[0], number


def test_one_place_means_what_leads_there() -> None:
    """The same comparison after different loads, and code on arguments that two calls and architectures share."""
    long = program(
        *(load(0), (0x15, 2, 0, 3), (0x15, 1, 0, 5), (0x06, 0, 0, ALLOW)),
        *(load(16), (0x15, 1, 0, 1), load(20), (0x15, 0, 1, 2), (0x06, 0, 0, DENY)),
        *(load(0), (0x15, 0, 1, 3), (0x06, 0, 0, DENY + 1)),
        *(load(4), (0x15, 0, 1, I386), (0x06, 0, 0, DENY + 2), (0x06, 0, 0, ALLOW)),
    )
    graph, root = filter_graph.read(long)
    compare(long, filter_code.assemble(graph, root), 200)


REFUSED = {
    "another instruction": [(0x30, 0, 0, 0), (0x06, 0, 0, ALLOW)],
    "a masked number": [load(0), (0x54, 0, 0, 0xFF), (0x15, 0, 1, 3), (0x06, 0, 0, DENY), (0x06, 0, 0, ALLOW)],
    "an ordered architecture": [load(4), (0x35, 0, 1, ARM), (0x06, 0, 0, DENY), (0x06, 0, 0, ALLOW)],
    "the instruction pointer": [load(8), (0x15, 0, 1, 3), (0x06, 0, 0, DENY), (0x06, 0, 0, ALLOW)],
    "nothing loaded": [(0x15, 0, 1, 3), (0x06, 0, 0, DENY), (0x06, 0, 0, ALLOW)],
    "a jump out": [(0x05, 0, 0, 9), (0x06, 0, 0, ALLOW)],
    "no return": [load(0)],
    "the number after an argument": [
        load(16),
        (0x15, 0, 0, 3),
        load(0),
        (0x15, 0, 1, 3),
        (6, 0, 0, 0),
        (6, 0, 0, ALLOW),
    ],
    "deep": [load(16)] + [(0x15, 255 - n % 2, 0, n) for n in range(600)] + [(0x06, 0, 0, n) for n in range(600)],
}


@pytest.mark.parametrize("kind", REFUSED)
def test_left_as_it_is(kind: str) -> None:
    long = program(*REFUSED[kind])
    with pytest.raises(filter_graph.Unreadable):
        filter_graph.read(long)
    assert filter_code.shorten(long) == long


def test_wrong_code_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    long = program(*[load(0)] * 9, (0x15, 0, 1, 3), (0x06, 0, 0, DENY), (0x06, 0, 0, ALLOW))
    assert filter_code.shorten(long) != long
    swapped = program(load(0), (0x15, 0, 1, 3), (0x06, 0, 0, ALLOW), (0x06, 0, 0, DENY))
    monkeypatch.setattr(filter_code, "assemble", lambda graph, root: swapped)
    assert filter_code.shorten(long) == long
