"""An assembler for just what our small programs need, for x86_64 and aarch64.

Registers: `a0`..`a5` hold a system call's arguments, `n` its number, `r` its result; `s0`..`s5` keep their values
across calls, the others do not. Every instruction has one length, so two passes give every label its place.

Encodings: Intel SDM volume 2; Arm Architecture Reference Manual (A64), section C6.2.
"""

from __future__ import annotations

from wherry.errors import Unimplemented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TEXT_BASE = 0x400000
"""Where an assembled program is loaded."""

EQUAL, NOT_EQUAL, LESS, NOT_LESS = "eq", "ne", "lt", "ge"


class Assembler:
    """Instructions in order; `assemble` gives the bytes. Values may be names of labels, here or in `symbols`."""

    machine = 0  # e_machine of its ELF files
    registers: dict[str, int]
    calls: dict[str, int]

    def __init__(self, start: int, symbols: dict[str, int]) -> None:
        self._start = start
        self._symbols = dict(symbols)
        self._code = b""
        self._fixed = False

    def assemble(self, write: Callable[[Assembler], None]) -> bytes:
        """The machine code of what `write` writes: once to find the labels, once with them known."""
        for self._fixed in (False, True):
            self._code = b""
            write(self)
        return self._code

    def label(self, name: str) -> None:
        """The place of the next instruction."""
        self._symbols[name] = self.here

    @property
    def here(self) -> int:
        """The address of the next instruction."""
        return self._start + len(self._code)

    def value(self, value: int | str) -> int:
        """A number, or a label's address; any, while labels are being found."""
        if isinstance(value, int):
            return value
        return self._symbols[value] if self._fixed else self._symbols.get(value, self.here)

    def emit(self, code: bytes) -> None:
        """Append encoded instructions."""
        self._code += code

    def call(self, name: str, *arguments: int | str) -> None:
        """A system call: numbers and labels, or registers by name."""
        for index, argument in enumerate(arguments):
            if isinstance(argument, str) and argument in self.registers:
                self.move(f"a{index}", argument)
            else:
                self.load_value(f"a{index}", argument)
        self.load_value("n", self.calls[name])
        self.call_number()

    # -- what each architecture does in its own way ---------------------------------------------------------------
    def load_value(self, to: str, value: int | str) -> None:
        """to = value"""
        raise NotImplementedError

    def move(self, to: str, source: str) -> None:
        """to = source"""
        raise NotImplementedError

    def stack(self, to: str) -> None:
        """to = the stack pointer"""
        raise NotImplementedError

    def load(self, to: str, base: str, offset: int) -> None:
        """to = 8 bytes at base + offset"""
        raise NotImplementedError

    def load_half(self, to: str, base: str, offset: int) -> None:
        """to = 4 bytes at base + offset, without sign"""
        raise NotImplementedError

    def store(self, source: str, base: str, offset: int) -> None:
        """8 bytes at base + offset = source"""
        raise NotImplementedError

    def add(self, to: str, source: str) -> None:
        """to += source"""
        raise NotImplementedError

    def add_value(self, to: str, value: int) -> None:
        """to += value (0..4095)"""
        raise NotImplementedError

    def bits(self, to: str, first: int, count: int) -> None:
        """to = `count` of its bits, from `first` on"""
        raise NotImplementedError

    def shift_left(self, to: str, count: int) -> None:
        """to <<= count"""
        raise NotImplementedError

    def branch(self, register: str, condition: str, value: int, target: str) -> None:
        """Go to `target` if the register compares so with the value (-4095..4095, signed)"""
        raise NotImplementedError

    def branch_equal(self, register: str, other: str, target: str) -> None:
        """Go to `target` if both registers are equal"""
        raise NotImplementedError

    def jump(self, target: str) -> None:
        """Go to `target`"""
        raise NotImplementedError

    def call_number(self) -> None:
        """The system call whose number is in `n`"""
        raise NotImplementedError


class X86(Assembler):
    """x86_64. Every operation is on 64 bits: a REX prefix with W, the opcode, ModRM."""

    machine = 62
    registers = {
        "a0": 7,
        "a1": 6,
        "a2": 2,
        "a3": 10,
        "a4": 8,
        "a5": 9,
        "n": 0,
        "r": 0,
        "s0": 3,
        "s1": 5,
        "s2": 12,
        "s3": 13,
        "s4": 14,
        "s5": 15,
    }
    calls = {
        "write": 1,
        "rt_sigprocmask": 14,
        "ioctl": 16,
        "getpid": 39,
        "clone": 56,
        "execve": 59,
        "wait4": 61,
        "kill": 62,
        "setpgid": 109,
        "prctl": 157,
        "rt_sigtimedwait": 128,
        "exit_group": 231,
    }
    _CONDITIONS = {EQUAL: 0x84, NOT_EQUAL: 0x85, LESS: 0x8C, NOT_LESS: 0x8D}

    def _operate(self, opcode: int, field: int, operand: int, *, wide: bool = True) -> None:
        """An operation between two registers; `field` may be a part of the opcode."""
        rex = 0x40 | wide << 3 | (field >> 3) << 2 | operand >> 3
        self.emit(bytes((rex, opcode, 0xC0 | (field & 7) << 3 | operand & 7)))

    def _address(self, opcode: int, field: int, base: int, offset: int, *, wide: bool = True) -> None:
        """An operation between a register and memory, always with a 32 bit displacement."""
        rex = 0x40 | wide << 3 | (field >> 3) << 2 | base >> 3
        # r12's number means "an index byte follows"; 0x24 is the one that says "no index".
        index = b"\x24" if base & 7 == 4 else b""
        self.emit(bytes((rex, opcode, 0x80 | (field & 7) << 3 | base & 7)) + index + offset.to_bytes(4, "little"))

    def load_value(self, to: str, value: int | str) -> None:
        number = self.registers[to]
        text = (self.value(value) & (1 << 64) - 1).to_bytes(8, "little")
        self.emit(bytes((0x48 | number >> 3, 0xB8 | number & 7)) + text)

    def move(self, to: str, source: str) -> None:
        self._operate(0x89, self.registers[source], self.registers[to])

    def stack(self, to: str) -> None:
        self._operate(0x89, 4, self.registers[to])

    def load(self, to: str, base: str, offset: int) -> None:
        self._address(0x8B, self.registers[to], self.registers[base], offset)

    def load_half(self, to: str, base: str, offset: int) -> None:
        self._address(0x8B, self.registers[to], self.registers[base], offset, wide=False)

    def store(self, source: str, base: str, offset: int) -> None:
        self._address(0x89, self.registers[source], self.registers[base], offset)

    def add(self, to: str, source: str) -> None:
        self._operate(0x01, self.registers[source], self.registers[to])

    def add_value(self, to: str, value: int) -> None:
        self._operate(0x81, 0, self.registers[to])
        self.emit(value.to_bytes(4, "little"))

    def bits(self, to: str, first: int, count: int) -> None:
        self._operate(0xC1, 5, self.registers[to])  # shr
        self.emit(bytes((first,)))
        self._operate(0x81, 4, self.registers[to])  # and
        self.emit(((1 << count) - 1).to_bytes(4, "little"))

    def shift_left(self, to: str, count: int) -> None:
        self._operate(0xC1, 4, self.registers[to])
        self.emit(bytes((count,)))

    def _jump(self, opcode: bytes, target: str) -> None:
        after = self.here + len(opcode) + 4
        self.emit(opcode + (self.value(target) - after).to_bytes(4, "little", signed=True))

    def branch(self, register: str, condition: str, value: int, target: str) -> None:
        self._operate(0x81, 7, self.registers[register])  # cmp
        self.emit(value.to_bytes(4, "little", signed=True))
        self._jump(bytes((0x0F, self._CONDITIONS[condition])), target)

    def branch_equal(self, register: str, other: str, target: str) -> None:
        self._operate(0x39, self.registers[other], self.registers[register])  # cmp
        self._jump(bytes((0x0F, self._CONDITIONS[EQUAL])), target)

    def jump(self, target: str) -> None:
        self._jump(b"\xe9", target)

    def call_number(self) -> None:
        self.emit(b"\x0f\x05")


class Arm64(Assembler):
    """aarch64. Every instruction is one little-endian word."""

    machine = 183
    registers = {
        "a0": 0,
        "a1": 1,
        "a2": 2,
        "a3": 3,
        "a4": 4,
        "a5": 5,
        "n": 8,
        "r": 0,
        "s0": 19,
        "s1": 20,
        "s2": 21,
        "s3": 22,
        "s4": 23,
        "s5": 24,
    }
    calls = {
        "write": 64,
        "rt_sigprocmask": 135,
        "ioctl": 29,
        "getpid": 172,
        "clone": 220,
        "execve": 221,
        "wait4": 260,
        "kill": 129,
        "setpgid": 154,
        "prctl": 167,
        "rt_sigtimedwait": 137,
        "exit_group": 94,
    }
    _CONDITIONS = {EQUAL: 0, NOT_EQUAL: 1, NOT_LESS: 10, LESS: 11}

    def _word(self, word: int) -> None:
        self.emit(word.to_bytes(4, "little"))

    def load_value(self, to: str, value: int | str) -> None:
        number, register = self.value(value) & (1 << 64) - 1, self.registers[to]
        self._word(0xD2800000 | (number & 0xFFFF) << 5 | register)  # movz
        for part in (1, 2, 3):
            self._word(0xF2800000 | part << 21 | (number >> 16 * part & 0xFFFF) << 5 | register)  # movk

    def move(self, to: str, source: str) -> None:
        self._word(0xAA0003E0 | self.registers[source] << 16 | self.registers[to])

    def stack(self, to: str) -> None:
        self._word(0x91000000 | 31 << 5 | self.registers[to])

    def load(self, to: str, base: str, offset: int) -> None:
        self._word(0xF9400000 | offset // 8 << 10 | self.registers[base] << 5 | self.registers[to])

    def load_half(self, to: str, base: str, offset: int) -> None:
        self._word(0xB9400000 | offset // 4 << 10 | self.registers[base] << 5 | self.registers[to])

    def store(self, source: str, base: str, offset: int) -> None:
        self._word(0xF9000000 | offset // 8 << 10 | self.registers[base] << 5 | self.registers[source])

    def add(self, to: str, source: str) -> None:
        register = self.registers[to]
        self._word(0x8B000000 | self.registers[source] << 16 | register << 5 | register)

    def add_value(self, to: str, value: int) -> None:
        register = self.registers[to]
        self._word(0x91000000 | value << 10 | register << 5 | register)

    def bits(self, to: str, first: int, count: int) -> None:
        register = self.registers[to]
        self._word(0xD3400000 | first << 16 | first + count - 1 << 10 | register << 5 | register)  # ubfm

    def shift_left(self, to: str, count: int) -> None:
        register = self.registers[to]
        self._word(0xD3400000 | 64 - count << 16 | 63 - count << 10 | register << 5 | register)  # ubfm

    def branch(self, register: str, condition: str, value: int, target: str) -> None:
        operation = 0xF1000000 if value >= 0 else 0xB1000000  # cmp, cmn
        self._word(operation | abs(value) << 10 | self.registers[register] << 5 | 31)
        self._branch(condition, target)

    def branch_equal(self, register: str, other: str, target: str) -> None:
        self._word(0xEB00001F | self.registers[other] << 16 | self.registers[register] << 5)  # cmp
        self._branch(EQUAL, target)

    def _branch(self, condition: str, target: str) -> None:
        distance = (self.value(target) - self.here) // 4
        self._word(0x54000000 | (distance & 0x7FFFF) << 5 | self._CONDITIONS[condition])

    def jump(self, target: str) -> None:
        distance = (self.value(target) - self.here) // 4
        self._word(0x14000000 | distance & 0x3FFFFFF)

    def call_number(self) -> None:
        self._word(0xD4000001)


ASSEMBLERS: dict[str, type[Assembler]] = {"x86_64": X86, "aarch64": Arm64}


def assembler_for(architecture: str) -> type[Assembler]:
    """Unimplemented for a processor nobody has written the encodings for."""
    found = ASSEMBLERS.get(architecture)
    if found is None:
        raise Unimplemented(
            f"--init is not supported on {architecture}", hint="use an image with an init of its own, such as tini"
        )
    return found
