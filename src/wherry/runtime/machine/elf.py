"""An executable of two segments: machine code that cannot be written, data that cannot be executed (elf(5))."""

from __future__ import annotations

import fcntl
import os
import struct

from wherry.runtime.machine.assembly import TEXT_BASE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.runtime.machine.assembly import Assembler

_HEADERS = 64 + 2 * 56
TEXT = TEXT_BASE + _HEADERS
"""Address of the first instruction, where the program begins."""
DATA_OFFSET = 0x1000
# Segments must not share a page, and aarch64 has pages of up to 64 KiB.
DATA = TEXT_BASE + 0x100000 + DATA_OFFSET
"""Address of the first byte of data."""
_ALIGNMENT = 0x10000
_EXECUTE, _WRITE, _READ = 1, 2, 4
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10


def executable(
    assembler: type[Assembler], write: Callable[[Assembler], None], data: Data, symbols: dict[str, int]
) -> bytes:
    """The file. `symbols`: addresses in `data` that the program names."""
    text = assembler(TEXT, symbols).assemble(write)
    if _HEADERS + len(text) > DATA_OFFSET:
        raise ValueError(f"a program of {len(text)} bytes does not fit")
    head = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    # ET_EXEC, machine, version, entry, program headers, no sections, flags, sizes and counts
    head += struct.pack("<HHIQQQIHHHHHH", 2, assembler.machine, 1, TEXT, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    size = _HEADERS + len(text)
    head += struct.pack("<IIQQQQQQ", 1, _READ | _EXECUTE, 0, TEXT_BASE, TEXT_BASE, size, size, _ALIGNMENT)
    length = len(data.content)
    head += struct.pack(
        "<IIQQQQQQ", 1, _READ | _WRITE, DATA_OFFSET, DATA, DATA, length, length + data.reserved, _ALIGNMENT
    )
    return (head + text).ljust(DATA_OFFSET, b"\0") + data.content


class Data:
    """The data of a program: what is put into it, and where that will be."""

    def __init__(self) -> None:
        self.content = b""
        self.reserved = 0

    def put(self, content: bytes) -> int:
        """The address of `content`, which begins at a multiple of 8."""
        address = DATA + len(self.content)
        self.content += content + bytes(-len(content) % 8)
        return address

    def text(self, text: str) -> int:
        """The address of a text that ends with a zero."""
        return self.put(os.fsencode(text) + b"\0")

    def pointers(self, addresses: list[int]) -> int:
        """The address of a table of addresses that ends with a zero."""
        return self.put(struct.pack(f"<{len(addresses) + 1}Q", *addresses, 0))

    def texts(self, texts: list[str] | tuple[str, ...]) -> int:
        """The address of a table of texts, as execve(2) takes it."""
        return self.pointers([self.text(text) for text in texts])


def sealed(name: str, content: bytes) -> int:
    """A close-on-exec descriptor of a file in memory that nobody can write to (CVE-2019-5736)."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        memory = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3 there is no such flag, and none is needed
        memory = os.memfd_create(name, flags)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(memory, view) :]
        os.fchmod(memory, 0o555)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(memory)
        raise
    return memory
